#!/usr/bin/env python3
"""Checks that a file says what it is for before its code begins.

Every source opens with a comment, or its first include is the header of the same name, which does.
A kernel's comment has the five headings of HEADINGS, in that order; what "See" names exists. A
kernel file is every .cu, every .cuh that starts kernels, and every .cpp of kernels/cpu but the table.

  scripts/check_openings.py [ROOT]      ROOT: the repository by default
"""

import pathlib
import re
import sys

HEADINGS = ["Shapes", "Launch", "Numerics", "Traffic", "See"]
SOURCES = {".cpp", ".cu", ".h", ".cuh"}
FOLDERS = ("include", "src", "kernels")
HEADING = re.compile(r"// ([A-Z]\w+) {2,}(\S.*)$")
PATH = re.compile(r"\b(?:kernels|tests|docs)/[\w./-]+\.\w+")


def opening(text):
    """The comment lines before the first line of code, #pragma once left out."""
    lines = text.removeprefix("#pragma once\n").splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("//")), len(lines))
    return lines[:count]


def has_own_header(path, text):
    """Whether the first include is the header of this file's name."""
    first = re.search(r'^#include\s*(?:"([^"]+)"|<)', text, re.MULTILINE)
    return bool(first and first[1] and pathlib.Path(first[1]).stem == path.stem)


def is_kernel(path, text):
    """Whether the file's comment needs the headings; `path` is relative to the root."""
    if path.parts[0] != "kernels":
        return False
    if path.name == "backend.cpp":  # the table of operations
        return False
    return (path.suffix == ".cu" or (path.suffix == ".cuh" and "__global__" in text) or
            (path.suffix == ".cpp" and path.parts[1] == "cpu"))


def kernel_problems(root, path, comment):
    found = [m for m in map(HEADING.match, comment) if m]
    names = [m[1] for m in found if m[1] in HEADINGS]
    problems = []
    if names != HEADINGS:
        problems.append(f"{path}:1: want the headings {', '.join(HEADINGS)} in this order, "
                        f"have {', '.join(names) or 'none'}")
    see = [line for i, line in enumerate(comment)
           if any(HEADING.match(before) and HEADING.match(before)[1] == "See"
                  for before in comment[:i + 1])]
    missing = [word for line in see for word in PATH.findall(line) if not (root / word).exists()]
    return problems + [f"{path}:1: {word} does not exist" for word in missing]


def check(root):
    """All offences, as lines, and the number of files."""
    files = sorted(f for folder in FOLDERS for f in (root / folder).rglob("*")
                   if f.suffix in SOURCES)
    problems = []
    for file in files:
        path, text = file.relative_to(root), file.read_text(encoding="utf-8")
        comment = opening(text)
        if not comment and not (path.suffix in {".cpp", ".cu"} and has_own_header(path, text)):
            problems.append(f"{path}:1: no comment says what this file is for")
        if is_kernel(path, text):
            problems += kernel_problems(root, path, comment)
    return problems, len(files)


def main():
    default = pathlib.Path(__file__).resolve().parent.parent
    root = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else default
    problems, count = check(root)
    print("\n".join([*problems, f"openings: {count} files, {len(problems)} problems"]))
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
