#!/usr/bin/env python3
"""Lists files, functions and parameter lists that are longer than the house allows.

Budgets: 400 lines a file, 100 columns, 60 lines a host function, 120 a CUDA kernel, 6 parameters.
Functions are found by their shape in clang-formatted code: a line that does not start with a space
or brace (inside namespaces nothing is indented), up to a closing brace at the same indentation.
Members defined in a class are found one indentation deeper. A test body may be longer than a
function. Exits 1 when something is over; a reviewer may allow one with a reason.

  scripts/budget.py [--list]      --list: the ten longest functions too
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_LINES, COLUMNS, FUNCTION_LINES, KERNEL_LINES, PARAMETERS = 400, 100, 60, 120, 6
TEST_LINES = 120
TYPE_OR_SCOPE = re.compile(r"^\s*(template <.*> )?(namespace|struct|class|enum|union|extern)\b")


def sources():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.h", "*.cpp", "*.cu", "*.cuh", "*.py",
         "*.sh"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def functions(lines):
    """(first line number, length, header text) of each function with a body of several lines."""
    start, indent, header = None, 0, ""
    for number, line in enumerate(lines, start=1):
        depth = len(line) - len(line.lstrip())
        if start is None:
            if not line.rstrip().endswith("{") or line.lstrip().startswith(("}", "#")):
                continue
            begin = header_start(lines, number - 1)
            indent = len(lines[begin]) - len(lines[begin].lstrip())
            if indent not in (0, 2):
                continue
            header = " ".join(text.strip() for text in lines[begin:number])
            if "(" not in header or TYPE_OR_SCOPE.match(header):
                continue
            start = begin + 1
        elif depth == indent and line.strip().startswith("}"):
            yield start, number - start + 1, header
            start = None


def header_start(lines, index):
    """The first line of a declaration whose last line is `index`: after a blank, ; { } or :."""
    while index > 0:
        above = lines[index - 1].strip()
        if not above or above.startswith(("//", "#")) or above.endswith((";", "{", "}", ":")):
            break
        index -= 1
    return index


def parameters(header):
    """Number of parameters in the first parenthesis; commas inside <>, () or {} do not count."""
    depth, count, seen = 0, 0, False
    for c in header[header.index("("):]:
        if c in "(<[{":
            depth += 1
        elif c in ")>]}":
            depth -= 1
            if depth == 0:
                break
        elif c == "," and depth == 1:
            count += 1
        elif not c.isspace():
            seen = True
    return count + 1 if seen else 0


def check_cpp(path, lines, longest):
    shown = path.relative_to(ROOT)
    for start, length, header in functions(lines):
        is_test = re.match(r"(TEST|TYPED_TEST|INSTANTIATE|BENCHMARK)\w*\(", header)
        limit = FUNCTION_LINES
        if is_test or "__global__" in header:
            limit = TEST_LINES if is_test else KERNEL_LINES
        name = re.sub(r"\(.*", "", header).split()[-1]
        longest.append((length, f"{shown}:{start}: {name}"))
        if length > limit:
            yield f"{shown}:{start}: {name} has {length} lines, the budget is {limit}"
        if not is_test and parameters(header) > PARAMETERS:
            yield f"{shown}:{start}: {name} has {parameters(header)} parameters, not {PARAMETERS}"


def check(paths):
    problems, longest = [], []
    for path in paths:
        lines = path.read_text(encoding="utf-8").splitlines()
        shown = path.relative_to(ROOT)
        if len(lines) > FILE_LINES:
            problems.append(f"{shown}:1: {len(lines)} lines, the budget is {FILE_LINES}")
        problems += [f"{shown}:{n}: {len(line)} columns, the budget is {COLUMNS}"
                     for n, line in enumerate(lines, start=1) if len(line) > COLUMNS]
        if path.suffix not in {".py", ".sh"}:
            problems += check_cpp(path, lines, longest)
    return problems, longest


def main():
    paths = sources()
    problems, longest = check(paths)
    for problem in problems:
        print(problem)
    if "--list" in sys.argv[1:]:
        for length, where in sorted(longest, reverse=True)[:10]:
            print(f"{length:5} {where}")
    print(f"budget: {len(paths)} files, {len(longest)} functions, {len(problems)} over")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
