#!/usr/bin/env python3
"""Checks that what the documentation names exists: paths in back-quotes and relative links.

A back-quoted word counts as a path when its first part is a top-level folder or file of the
repository (`src/core/json.cpp`); a link, always. Words with
placeholders (<>, *, {}, NAME) and paths that are made at run time (build/, data/, runs/) are not
checked. In code blocks only scripts/... and configs/....yaml are.

  scripts/check_docs.py [FILE...]      default: every tracked .md file
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MADE_LATER = ("build/", "data/", "runs/", ".venv", "/", "~")
PLACEHOLDER = re.compile(r"[<>*{}$|…]|\.\.\.|NAME|NNNN|\s")


def documents():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT,
                            capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines()]


def top_level():
    return {p.name for p in ROOT.iterdir() if p.name != ".git"}


def exists(word, folder):
    """A path as written from the root or from the document's folder; file:line is a path too."""
    word = re.sub(r"(:\d+)?(#.*)?$", "", word)
    return any((base / word).exists() for base in (ROOT, folder))


def words_of(line, in_code, tops):
    """What a line claims to exist."""
    if in_code:
        return re.findall(r"(?:^|\s)(?:\./)?(scripts/[\w./-]+|configs/[\w./-]+\.yaml)", line)
    quoted = [w.removeprefix("./") for w in re.findall(r"`([^`]+)`", line)]
    paths = [w for w in quoted if "/" in w and w.split("/")[0] in tops]
    paths += [w for w in quoted if re.fullmatch(r"[\w.-]+\.(md|py|sh|txt|yaml)", w)
              and w in tops]
    links = [w for w in re.findall(r"\]\(([^)\s]+)\)", line)
             if not re.match(r"[a-z]+:|#", w)]
    return [w for w in paths + links
            if not PLACEHOLDER.search(w) and not w.startswith(MADE_LATER)]


def check(path, tops):
    problems, in_code = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if re.fullmatch(r"[A-Z]+_OUTPUT", line):
            problems.append(f"{path.name}:{number}: {line} stands where real output should")
        if line.lstrip().startswith("```"):
            in_code = not in_code
            continue
        for word in words_of(line, in_code, tops):
            if not exists(word, path.parent):
                shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
                problems.append(f"{shown}:{number}: {word} does not exist")
    return problems


def main():
    paths = [pathlib.Path(p).resolve() for p in sys.argv[1:]] or documents()
    tops = top_level()
    problems = [p for path in paths for p in check(path, tops)]
    print("\n".join([*problems, f"docs: {len(paths)} files, {len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
