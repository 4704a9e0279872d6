#!/usr/bin/env python3
"""Checks who includes whom: modules point down only, and each third-party library has its place.
Device code uses nothing that only nvcc understands outside kernels/cuda/ptx. Above the kernels
nobody asks which device something is on, but what it can do (core/device.h).

docs/architecture.md draws this table, and CMake has one static library a module with the same
edges. Tests may include anything. Prints every offence as file:line and exits 1 if there is one.

  scripts/check_layers.py [ROOT]      ROOT: the repository by default
"""

import pathlib
import re
import sys

# module -> modules whose public headers it may include beside its own; `dispatch` is src/ops.
MAY_INCLUDE = {
    "core": "",
    "ops": "core",
    "kernels": "core ops",
    "dispatch": "core ops kernels",
    "config": "core",
    "comm": "core",
    "watch": "core comm",
    "data": "core config",
    "nn": "core config ops",
    "optim": "core config ops",
    "parallel": "core config ops comm nn optim",
    "ckpt": "core config comm",
    "record": "core config nn ckpt",
    "eval": "core config ops comm data nn ckpt",
    "hub": "core config data nn ckpt record eval",
    "train": "core config ops comm watch data nn optim parallel ckpt record eval",
    "app": "core config ops kernels comm data nn optim parallel ckpt record eval hub train",
}

# What an angle-bracket (or third-party) include starts with -> where it may stand. An empty tuple:
# nowhere in the product.
THIRD_PARTY = [
    (r"yaml-cpp/", ("src/config/",)),
    (r"nlohmann/", ("src/core/json.cpp",)),
    (r"spdlog/", ("src/core/log.cpp",)),
    (r"CLI/", ("src/app/",)),
    (r"simdjson", ("src/data/",)),
    (r"xxhash|xxh3", ("src/core/hash.cpp",)),
    (r"zlib\.h|zstd\.h|pcre2\.h", ("src/data/",)),
    (r"(mpi|nccl)\.h", ("src/comm/",)),
    (r"(cub|thrust|cutlass)/|cooperative_groups|mma\.h|cuda/", ()),  # the emulation has none of these
    (r"cuda", ("kernels/cuda/",)),
    (r"omp\.h", ()),  # one thread pool: core/context.h
    (r"cblas|mkl", ()),  # results must not depend on somebody's thread count
    (r"iostream|regex$", ()),  # slow to compile
    (r"gtest/|gmock/|benchmark/", ()),
]
ONE_FILE_ONLY = {r"simdjson", r"CLI/"}  # slow to compile: behind one .cpp of ours
# Headers that others include stay free of fmt, which nvcc cannot compile; these two are host only.
FMT_HEADERS = {"include/grist/core/check.h", "include/grist/core/log.h"}
NOT_FOR_CUDA = ("grist/core/check.h", "grist/core/log.h", "fmt/")

# In kernels/cuda, but not in its ptx/: what would not run on the emulation too.
NOT_IN_KERNELS = {
    "<<<": "start kernels with launch() (kernels/cuda/launch.h)",
    "asm": "write a wrapper in kernels/cuda/ptx",
    "__CUDA_ARCH__": "choose by a template parameter from device_info()",
}
KERNEL_WORDS = re.compile(r"<<<|\basm\b|__CUDA_ARCH__")

# Above the kernels: a comparison sends every device but those its author knew the wrong way.
DEVICE_ASKED = re.compile(r"[=!]=\s*(\w+::)*Device::|Device::\w+\s*[=!]=|\bcase\s+(\w+::)*Device::")
# Who may say Device::cuda at all: who offers it, and what `device: auto` means.
NAMES_CUDA = {"src/app/backends.cpp", "src/nn/choose_device.cpp", "include/grist/core/device_id.h"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}


def module_of(path):
    """The module that a path belongs to, by its folder."""
    parts = path.split("/")
    if parts[0] == "include":
        return parts[2]
    if parts[0] == "kernels":
        return "kernels"
    return "dispatch" if parts[1] == "ops" else parts[1]


def project_problem(path, target):
    """Why this include of one of our own headers is wrong, or None."""
    module = module_of(path)
    parts = target.split("/")
    wanted = "kernels" if parts[0] == "kernels" else parts[1]
    if module not in MAY_INCLUDE:
        return f"module {module} is not in the table of scripts/check_layers.py"
    if wanted != module and wanted not in MAY_INCLUDE[module].split():
        return f"{module} may not include {wanted} ({target})"
    if path.endswith((".cu", ".cuh")) and target in NOT_FOR_CUDA:
        return f"device code may not include {target}"
    return None


def other_problem(root, path, target, quoted):
    """Why this include of a system, third-party or private header is wrong, or None."""
    for pattern, places in THIRD_PARTY:
        if re.match(pattern, target):
            if any(path.startswith(place) for place in places):
                return None
            return f"<{target}> belongs in {' or '.join(places) or 'no part of the product'}"
    if target.startswith("fmt/"):
        if path.endswith((".cu", ".cuh")):
            return "device code may not include fmt"
        if path.startswith("include/") and path not in FMT_HEADERS:
            return f"<{target}> in a public header: only {' and '.join(sorted(FMT_HEADERS))} may"
    if quoted and not (root / path).parent.joinpath(target).is_file():
        return f'"{target}" is not in the same folder; write grist/<module>/... or kernels/...'
    return None


def kernel_problem(path, line):
    """Why this line may not stand in device code, or None."""
    if not path.startswith("kernels/cuda/") or path.startswith("kernels/cuda/ptx/"):
        return None
    match = KERNEL_WORDS.search(line.split("//")[0])
    return f"{match[0]}: {NOT_IN_KERNELS[match[0]]}" if match else None


def device_problem(path, line):
    """Why this line may not name a device, or None."""
    code = line.split("//")[0]
    if path.startswith("kernels/"):
        return None
    if DEVICE_ASKED.search(code):
        return "ask properties(device), not which device it is (grist/core/device.h)"
    if "Device::cuda" in code and path not in NAMES_CUDA:
        return f"Device::cuda belongs in {' or '.join(sorted(NAMES_CUDA))}"
    return None


def check(root):
    """All offences, as lines."""
    problems, users = [], {pattern: set() for pattern in ONE_FILE_ONLY}
    files = sorted(f for top in ("include", "src", "kernels") for f in (root / top).rglob("*")
                   if f.suffix in SUFFIXES)
    for file in files:
        path = file.relative_to(root).as_posix()
        text = file.read_text(encoding="utf-8")
        if file.suffix in {".h", ".cuh"} and not text.startswith("#pragma once"):
            problems.append(f"{path}:1: a header begins with #pragma once")
        for number, line in enumerate(text.splitlines(), start=1):
            if problem := kernel_problem(path, line):
                problems.append(f"{path}:{number}: {problem}")
            if problem := device_problem(path, line):
                problems.append(f"{path}:{number}: {problem}")
            match = INCLUDE.match(line)
            if not match:
                continue
            quoted, target = match[1] == '"', match[2]
            if target.startswith(("grist/", "kernels/")):
                problem = project_problem(path, target)
            else:
                problem = other_problem(root, path, target, quoted)
            if problem:
                problems.append(f"{path}:{number}: {problem}")
            for pattern in ONE_FILE_ONLY:
                if re.match(pattern, target):
                    users[pattern].add(path)
    for pattern, paths in users.items():
        if len(paths) > 1:
            problems.append(f"{pattern} is included by several files: {' '.join(sorted(paths))}")
    return problems, len(files)


def main():
    default = pathlib.Path(__file__).resolve().parent.parent
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    problems, count = check(root)
    for problem in problems:
        print(problem)
    if count == 0:
        print(f"{root} has no sources; give the repository's folder")
        return 1
    print(f"layers: {count} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
