#!/usr/bin/env python3
"""What every CUDA kernel needs: registers, shared memory, spills, tensor instructions.

Reads what the build of the `cuda` preset keeps (scripts/nvcc_report.py) and fails when
- a matmul or attention kernel spills registers,
- ptxas warns, or says that it serialised wgmma or ignored setmaxnreg (its C7... notes),
- a matmul or attention kernel of kernels/cuda/sm90 has no HGMMA instruction,
- docs/kernel_resources.md is not what the build gives (with the compiler that wrote it).

  scripts/kernel_resources.py [--write] [BUILD]      BUILD: build/cuda; --write: writes the page
"""

import collections
import pathlib
import re
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/kernel_resources.md"
ARCHITECTURES = ["sm_80", "sm_90a"]
# The low 12 bits of a 16-byte instruction name the operation; the same on sm_80 and sm_90a. HGMMA has
# its left operand in shared memory or in registers.
OPCODES = {0x23C: "HMMA", 0x9F0: "HGMMA", 0xDF0: "HGMMA"}
HOT = re.compile(r"matmul|attention|expert|linear|cross_entropy")
NEEDS_HGMMA = re.compile(r"matmul|attention")
# (file, kernel, architecture) -> bytes of spills that are known: few, to be got rid of.
KNOWN_SPILLS = {}
COMPLAINT = re.compile(r"warning|\(C7\d+\)", re.IGNORECASE)

HEAD = """# What the kernels need

Written by `scripts/kernel_resources.py --write`, checked by `.ci/run` where nvcc is; do not edit. Compiler: {compiler}.
Registers are of one thread; shared memory is the static part, in bytes (matmul and attention kernels ask for more when they are started);
spills are bytes stored and loaded. HMMA and HGMMA count the tensor core instructions in the machine code: `mma.sync` and `wgmma`.

"""


class Kernel:
    """One kernel on one architecture."""

    def __init__(self):
        self.registers = self.shared = self.stack = self.spills = 0
        self.instructions = collections.Counter()


def report(text):
    """{(mangled name, architecture): Kernel} from ptxas's report."""
    kernels, current, function = {}, None, None
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
            current = kernels[m[1], m[2]] = Kernel()
            entry = m[1]
        elif m := re.search(r"Function properties for (\S+)", line):
            function = m[1]
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", line):
            if current and function == entry:
                current.stack = int(m[1])
            if current:  # also of functions that it calls
                current.spills += int(m[2]) + int(m[3])
        elif m := re.search(r"Used (\d+) registers", line):
            current.registers = int(m[1])
            shared = re.search(r"(\d+) bytes smem", line)
            current.shared = int(shared[1]) if shared else 0
    return kernels


def tensor_instructions(cubin):
    """{mangled name: counts} of the kernels in a cubin, an ELF file of 64 bits."""
    table, = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    found = {}
    for name, _, _, _, offset, length in sections:
        start = sections[names][4] + name
        text = cubin[start:cubin.index(b"\0", start)].decode()
        if text.startswith(".text."):
            words = struct.iter_unpack("<QQ", cubin[offset:offset + length])
            found[text[6:]] = collections.Counter(
                OPCODES[word & 0xFFF] for word, _ in words if word & 0xFFF in OPCODES)
    return found


def readable(names):
    """{mangled: short name with template arguments}."""
    run = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                         check=True)
    return dict(zip(names, map(shorten, run.stdout.splitlines())))


def shorten(name):
    name = name.replace("(anonymous namespace)::", "").replace("grist::cuda::", "")
    name = name.replace("__nv_bfloat16", "bf16")
    name = re.sub(r"\((?:int|bool|unsigned int|[\w:]+)\)(?=-?\d)", "", name)  # (int)64 -> 64
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            name = name[:i]
            break
    return name.removeprefix("void ")


def read_build(build):
    """({(file, kernel name): {architecture: Kernel}}, problems)."""
    table, problems = collections.defaultdict(dict), []
    for folder in sorted(build.glob("kernels/cuda/**/*.report")):
        text = (folder / "ptxas").read_text(encoding="utf-8")
        source = pathlib.Path((folder / "source").read_text(encoding="utf-8").strip())
        file = source.relative_to(ROOT).as_posix() if source.is_relative_to(ROOT) else source.name
        if not source.exists():
            continue
        problems += [f"{file}: {line.strip()}" for line in text.splitlines()
                     if COMPLAINT.search(line)]
        counts = {}
        for cubin in folder.glob("*.cubin"):
            arch = "sm_" + re.search(r"(?:sm_|compute_)(\w+)\.cubin$", cubin.name)[1]
            counts[arch] = tensor_instructions(cubin.read_bytes())
        kernels = report(text)
        names = readable(sorted({name for name, _ in kernels}))
        for (mangled, arch), kernel in kernels.items():
            if mangled not in counts.get(arch, {}):
                problems.append(f"{file}: {names[mangled]} is in no cubin for {arch}")
            kernel.instructions = counts.get(arch, {}).get(mangled, collections.Counter())
            table[file, names[mangled]][arch] = kernel
    return table, problems


def judge(table):
    for (file, name), kernels in sorted(table.items()):
        for arch, kernel in kernels.items():
            known = KNOWN_SPILLS.get((file, name, arch), 0)
            if kernel.spills > known and HOT.search(file + name):
                yield f"{file}: {name} spills {kernel.spills} bytes on {arch}"
            if (arch == "sm_90a" and "/sm90/" in file and NEEDS_HGMMA.search(name)
                    and kernel.instructions["HGMMA"] == 0):
                yield f"{file}: {name} has no HGMMA instruction on {arch}"


def page(table, compiler):
    lines = ["| kernel | file | arch | registers | shared | stack | spills | HMMA | HGMMA |",
             "|---|---|---|---|---|---|---|---|---|"]
    for (file, name), kernels in sorted(table.items()):
        for arch in ARCHITECTURES:
            if k := kernels.get(arch):
                lines.append(f"| {name.replace('|', chr(92) + '|')} | {file.split('cuda/')[-1]} "
                             f"| {arch} | {k.registers} | {k.shared} | {k.stack} | {k.spills} "
                             f"| {k.instructions['HMMA']} | {k.instructions['HGMMA']} |")
    return HEAD.format(compiler=compiler) + "\n".join(lines) + "\n"


def compiler_of(build):
    cache = (build / "CMakeCache.txt").read_text(encoding="utf-8")
    nvcc = re.search(r"^GRIST_NVCC_PATH:\w+=(.*)$", cache, re.MULTILINE)[1]
    run = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True)
    return "nvcc " + re.search(r"V([\d.]+)", run.stdout)[1]


def page_problem(new, compiler):
    """Why the page in the repository is not what this build gives, or None."""
    name = PAGE.relative_to(ROOT)
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if old == new:
        return None
    if old and f"Compiler: {compiler}." not in old:
        print(f"{name} is of another compiler than {compiler}: not compared")
        return None
    return f"{name} is not what the build gives: scripts/kernel_resources.py --write"


def main():
    arguments = [a for a in sys.argv[1:] if a != "--write"]
    build = pathlib.Path(arguments[0]) if arguments else ROOT / "build/cuda"
    table, problems = read_build(build.resolve())
    if not table:
        print(f"{build} has no compiled kernels: cmake --preset cuda && ninja -C build/cuda")
        return 1
    compiler = compiler_of(build)
    new = page(table, compiler)
    problems += judge(table)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
    elif problem := page_problem(new, compiler):
        problems.append(problem)
    print("\n".join([*problems, f"kernels: {len(table)}, {len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
