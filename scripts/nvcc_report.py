#!/usr/bin/env python3
"""Starts nvcc and keeps what scripts/kernel_resources.py reads: ptxas's report and the cubins.

CMake puts it before nvcc as the compiler launcher. Beside an object x.cu.o it leaves
x.cu.o.report/ with `ptxas` (the report), `source` (the path of x.cu) and a cubin an architecture.
Of the compiler's output it passes on all but the report.

  scripts/nvcc_report.py nvcc ARGUMENTS... -c FILE -o OBJECT
"""

import pathlib
import re
import shutil
import subprocess
import sys

# Lines of the report of a kernel without anything to complain about.
QUIET = re.compile(r"^ptxas info\s*: (?!\(C)|^\s+\d+ bytes stack frame|^\s*$")


def main():
    command = sys.argv[1:]
    if "-c" not in command or "-o" not in command:  # not a compilation, e.g. CMake asks something
        return subprocess.run(command, check=False).returncode
    target = pathlib.Path(command[command.index("-o") + 1] + ".report")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    run = subprocess.run([*command, "--keep", "--keep-dir", target], check=False, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for path in target.iterdir():
        if path.suffix != ".cubin":
            path.unlink()
    (target / "ptxas").write_text(run.stdout, encoding="utf-8")
    source = pathlib.Path(command[command.index("-c") + 1]).resolve()
    (target / "source").write_text(f"{source}\n", encoding="utf-8")
    shown = [line for line in run.stdout.splitlines() if not QUIET.search(line)]
    if shown:
        print("\n".join(shown))
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
