#!/usr/bin/env python3
"""Writes src/eval/unicode_case.h: what str.capitalize() of CPython does to each character.

HellaSwag's prompt goes through it in lm-evaluation-harness, so the interpreter itself is asked.
Run by hand:
    python3 scripts/make_unicode_case.py
"""

import pathlib
import unicodedata

TARGET = pathlib.Path(__file__).resolve().parent.parent / "src/eval/unicode_case.h"
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def runs(mapping):
    """(first, last, step, delta) of neighbours that are mapped alike, one or two apart."""
    result = []
    for code, to in sorted(mapping.items()):
        delta = to - code
        if result:
            first, last, step, d = result[-1]
            gap = code - last
            if d == delta and gap in (1, 2) and (first == last or gap == step):
                result[-1] = (first, code, gap, d)
                continue
        result.append((code, code, 1, delta))
    return result


def ranges(points):
    result = []
    for code in sorted(points):
        if result and code == result[-1][1] + 1:
            result[-1][1] = code
        else:
            result.append([code, code])
    return result


def rows(items, width=96):
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > width:
            lines.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*lines, line])


def main():
    title = {c: chr(c).title() for c in SCALARS if chr(c).title() != chr(c)}
    # chr(c).lower() of a final sigma is another; alone it is none.
    lower = {c: chr(c).lower() for c in SCALARS if chr(c).lower() != chr(c)}
    sigma = {c for c in SCALARS if ("a" + chr(c) + "Σ").lower()[-1] == "ς"}
    cased = {c for c in sigma if (chr(c) + "Σ").lower()[-1] == "ς"}
    tables = []
    for name, table, what in (("Title", title, "first character"), ("Lower", lower, "the others")):
        one = {c: ord(t) for c, t in table.items() if len(t) == 1}
        tables.append(f"inline constexpr CaseRun k{name}[] = {{  // {what}\n" + rows(
            f"{{{a:#x}, {b:#x}, {s}, {d}}}" for a, b, s, d in runs(one)) + "\n};")
        many = {c: t for c, t in table.items() if len(t) > 1}
        tables.append(f"inline constexpr CaseString k{name}Strings[] = {{\n" + rows(
            "{%#x, U\"%s\"}" % (c, "".join(f"\\U{ord(x):08x}" for x in t))
            for c, t in sorted(many.items())) + "\n};")
    for name, points in (("Cased", cased), ("CaseIgnorable", sigma - cased)):
        tables.append(f"inline constexpr CodeRange k{name}[] = {{\n" + rows(
            f"{{{a:#x}, {b:#x}}}" for a, b in ranges(points)) + "\n};")
    TARGET.write_text(f"""#pragma once
// Case mappings of Unicode {unicodedata.unidata_version} as CPython applies them. Made by scripts/make_unicode_case.py.
#include <cstdint>

namespace grist::eval {{

// Every step-th code point from first to last becomes itself plus delta.
struct CaseRun {{
  char32_t first, last;
  std::int32_t step, delta;
}};
struct CaseString {{
  char32_t code;
  const char32_t* text;
}};
struct CodeRange {{
  char32_t first, last;
}};

// clang-format off
""" + "\n\n".join(tables) + "\n// clang-format on\n\n}  // namespace grist::eval\n",
                      encoding="utf-8")


if __name__ == "__main__":
    main()
