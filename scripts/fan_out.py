#!/usr/bin/env python3
"""Counts the source files that a change of a header recompiles, by following the includes.

  scripts/fan_out.py                          the twenty headers of the product that most files see
  scripts/fan_out.py grist/core/memory.h ...  these ones (add --files for the list of files)
  scripts/fan_out.py --tests ...              tests and the emulation count too
  scripts/fan_out.py --root DIR ...           another tree, e.g. a worktree of an older commit

Conditional includes count as taken. The product is what the cpu preset builds: src and kernels/cpu.
"""

import argparse
import pathlib
import re

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
SOURCES = {".cpp", ".cu"}


def resolve(root, file, target):
    """The file of this tree that an include names, or None for somebody else's header."""
    for folder in (file.parent, root / "include", root, root / "src", root / "tests",
                   root / "tests/cuda_emulation/include"):
        candidate = folder / target
        if candidate.is_file():
            return candidate.resolve()
    return None


def includes_of(root, file, known):
    """Every header of this tree that a file sees, itself excepted."""
    if file not in known:
        known[file] = set()  # a circle ends here
        found = set()
        for target in INCLUDE.findall(file.read_text(encoding="utf-8")):
            header = resolve(root, file, target)
            if header is not None:
                found |= {header} | includes_of(root, header, known)
        known[file] = found
    return known[file]


def sources(root, tests):
    """The translation units that count."""
    tops = ["src", "kernels/cpu"] + (["kernels/cuda", "tests"] if tests else [])
    return sorted(f for top in tops for f in (root / top).rglob("*") if f.suffix in SOURCES)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("headers", nargs="*", help="as they are included: grist/core/memory.h")
    parser.add_argument("--tests", action="store_true", help="count tests and the emulation too")
    parser.add_argument("--files", action="store_true", help="list the files")
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    args = parser.parse_args()
    root = args.root.resolve()
    units, known, users = sources(root, args.tests), {}, {}
    for unit in units:
        for header in includes_of(root, unit, known):
            users.setdefault(header, []).append(unit)
    if args.headers:
        wanted = [resolve(root, root / "CMakeLists.txt", h) for h in args.headers]
        for name, header in zip(args.headers, wanted):
            if header is None:
                parser.error(f"{name}: no such header; write it as an include does")
    else:
        wanted = sorted(users, key=lambda h: -len(users[h]))[:20]
    for header in wanted:
        seen = users.get(header, [])
        print(f"{len(seen):4} of {len(units)}  {header.relative_to(root)}")
        if args.files:
            print("".join(f"    {f.relative_to(root)}\n" for f in seen), end="")


if __name__ == "__main__":
    main()
