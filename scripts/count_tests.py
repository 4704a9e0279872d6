#!/usr/bin/env python3
"""Counts what a stage of .ci/run executed, from what it printed.

  scripts/count_tests.py LOG      prints: PASSED FAILED SKIPPED

One each: a test of ctest; a test of Python's unittest; a check that ends with "N problems"; a part of
scripts/smoke.sh; "NAME: skipped, WHY". Lines of other programs count nothing."""

import pathlib
import re
import sys

CTEST = re.compile(r"^\s*\d+/\d+ Test +#\d+: \S.*?(Passed|\*\*\*[A-Z][A-Za-z ]*)")
UNITTEST = re.compile(r"^Ran (\d+) tests? in ")
VERDICT = re.compile(r"^(?:OK|FAILED)(?: \((.*)\))?$")
CHECK = re.compile(r"^[a-z][a-z -]*: .*?\b(\d+) problems?\b")
SMOKE = re.compile(r"^smoke: step \d+, loss ")
SKIPPED = re.compile(r"^[a-z]+: skipped, ")
WITHOUT_RUN = ("***Skipped", "***Not Run")


def count(text):
    """Passed, failed, skipped."""
    passed = failed = skipped = 0
    ran = 0  # by unittest, whose verdict comes two lines later
    for line in text.splitlines():
        if match := CTEST.match(line):
            verdict = match[1].strip()
            passed += verdict == "Passed"
            skipped += verdict.startswith(WITHOUT_RUN)
            failed += verdict != "Passed" and not verdict.startswith(WITHOUT_RUN)
        elif match := UNITTEST.match(line):
            ran = int(match[1])
        elif ran and (match := VERDICT.match(line)):
            numbers = {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", match[1] or "")}
            bad = numbers.get("failures", 0) + numbers.get("errors", 0)
            out = numbers.get("skipped", 0)
            passed, failed, skipped = passed + ran - bad - out, failed + bad, skipped + out
            ran = 0
        elif match := CHECK.match(line):
            passed += match[1] == "0"
            failed += match[1] != "0"
        elif SMOKE.match(line):
            passed += 1
        elif SKIPPED.match(line):
            skipped += 1
    return passed, failed, skipped


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    print(*count(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
