#!/usr/bin/env python3
"""Plants one mistake at a time in the CUDA kernels and looks whether their tests find it.

  ninja -C build/cpu cuda_test cuda_kernel_race_test
  scripts/kernel_mutants.py [--list] [NAME ...]

A mutant is a copy of the sources with one piece of text replaced. The file that changes is compiled
as cuda_test and cuda_kernel_race_test compile it, and each program is linked again with that object
in place of the right one. The plain program must fail under one of its schedules, or the race
checker must; the output has a row of the table in docs/emulation.md for each mutant. Exit status 1:
one of them was not found, or its text is no longer in the sources. Three minutes on two cores: not
a part of CI."""

import argparse
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

from kernel_mutant_list import MUTANTS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Program, and the library whose objects it holds.
PROGRAMS = {"plain": ("cuda_test", "grist_kernels_cuda_emulated"),
            "race": ("cuda_kernel_race_test", "grist_kernels_cuda_race")}
TIMEOUT = 300  # seconds of a program


class Build:
    """What the build folder knows: how objects are made and programs linked."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        with open(os.path.join(self.folder, "compile_commands.json"), encoding="utf-8") as f:
            self.compiles = json.load(f)
        self.links = {kind: self._link(program) for kind, (program, _) in PROGRAMS.items()}

    def _link(self, program):
        output = subprocess.run(["ninja", "-C", self.folder, "-t", "commands", program], check=True,
                                capture_output=True, text=True).stdout
        return shlex.split(output.strip().splitlines()[-1].split(" && ")[1])

    def compile(self, kind, source, tree):
        """Compiles `source` of the copied tree; its object, and the name of the one it replaces."""
        library = PROGRAMS[kind][1] + ".dir"
        entry = next(e for e in self.compiles
                     if e["file"] == os.path.join(ROOT, source) and library in e["command"])
        command = shlex.split(entry["command"])
        replaced = command[command.index("-o") + 1]
        made = os.path.join(tree, f"{kind}.o")
        command[command.index("-o") + 1] = made
        command[command.index("-c") + 1] = os.path.join(tree, source)
        command[1:1] = ["-I" + tree]
        if shutil.which("ccache") and command[0] != shutil.which("ccache"):
            command.insert(0, "ccache")
        run = subprocess.run([*command, "-w"], cwd=self.folder, capture_output=True, text=True,
                             check=False)
        if run.returncode != 0:
            raise RuntimeError(f"does not compile:\n{run.stderr[:2000]}")
        return made, replaced

    def link(self, kind, made, replaced, tree):
        """The mutant's object first: of an inline function, the first form that comes is taken."""
        command = [word for word in self.links[kind] if word != replaced]
        assert len(command) == len(self.links[kind]) - 1, replaced
        program = os.path.join(tree, PROGRAMS[kind][0])
        command[command.index("-o") + 1] = program
        first = next(i for i, word in enumerate(command) if word.endswith(".o"))
        subprocess.run([*command[:first], made, *command[first:]], cwd=self.folder, check=True)
        return program


def finding(output, status):
    """In a few words, what found the mistake; None: all tests passed."""
    if status == 0:
        return None
    report = re.search(r"launch of a kernel: (thread \(.*?\) of block \(.*?\): )?([^:,[]*)", output)
    if report:
        return report.group(2).strip()
    if status < 0:
        return f"ends by signal {-status}"
    if re.search(r"\bnan\b", output):
        return "NaN"
    return "wrong values" if "Failure" in output else f"exit status {status}"


def try_mutant(build, mutant):
    """What the plain program and the race checker found."""
    tree = os.path.join(build.folder, "mutants", mutant.name)
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(os.path.join(ROOT, "kernels"), os.path.join(tree, "kernels"))
    path = os.path.join(tree, mutant.file)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    if text.count(mutant.old) != 1:
        raise RuntimeError(f"{mutant.file} has the text {text.count(mutant.old)} times, not once")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace(mutant.old, mutant.new))
    found = {}
    for kind in PROGRAMS:
        made, replaced = build.compile(kind, mutant.source, tree)
        program = build.link(kind, made, replaced, tree)
        command = [program, "--gtest_fail_fast", "--gtest_filter=" + mutant.tests]
        try:
            run = subprocess.run(command, capture_output=True, text=True, errors="replace",
                                 check=False, timeout=TIMEOUT)
            found[kind] = finding(run.stdout + run.stderr, run.returncode)
        except subprocess.TimeoutExpired:
            found[kind] = "runs for ever"
    shutil.rmtree(tree)
    return found


def row(mutant, found):
    """A row of the table in docs/emulation.md."""
    file = mutant.file.removeprefix("kernels/cuda/")
    return f"| {file}: {mutant.what} | {found['plain'] or '-'} | {found['race'] or '-'} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutants alone")
    parser.add_argument("--build", default=os.path.join(ROOT, "build/cpu"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    mutants = [m for m in MUTANTS if not arguments.names or m.name in arguments.names]
    if arguments.list:
        print("\n".join(f"{m.name}: {m.what}" for m in mutants))
        return 0
    build = Build(arguments.build)
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, future in [(m, pool.submit(try_mutant, build, m)) for m in mutants]:
            try:
                found = future.result()
            except RuntimeError as error:
                missed += 1
                print(f"{mutant.name}: {error}", flush=True)
                continue
            missed += not any(found.values())
            print(row(mutant, found), flush=True)
    print(f"{len(mutants)} mutants, {missed} not found", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
