#!/usr/bin/env python3
"""Begins a new operation: its files, its line in kernels/backends.h, its CMake entries.

  scripts/new_op.py NAME [ROOT]      NAME: small letters and underscores, e.g. soft_cap

What it writes computes nothing yet: both kernels refuse, so tests/ops/NAME_test.cpp fails until
they do what it wants. docs/adding-an-op.md goes through the files one after another.
"""

import pathlib
import re
import sys

FILES = {
    "include/grist/ops/{name}.h": """\
#pragma once
// {title}:  y = x      TODO: the formula, and where it comes from
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {{

struct {struct} {{
  TensorView y;       // out (N, D)
  ConstTensorView x;  // in  (N, D)
}};
// Asynchronous on ctx.stream.
void {name}(const Context& ctx, const {struct}& a);

}}  // namespace grist::ops
""",
    "src/ops/{name}.cpp": """\
#include "grist/ops/{name}.h"

#include "operand.h"

namespace grist::ops {{

void {name}(const Context& ctx, const {struct}& a) {{
  constexpr const char* kOp = "{name}";
  require_rank(kOp, "y", a.y, 2);
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "y", a.y, A, a.y.shape);
  require(kOp, "x", a.x, A, a.y.shape);
  if (a.y.numel() == 0) return;
  GRIST_DISPATCH({name}, ctx, a);
}}

}}  // namespace grist::ops
""",
    "kernels/cpu/{name}.cpp": """\
// {title}, CPU.
//
// Shapes    x, y (N, D); f32.
// Launch    TODO: what a task is.
// Numerics  TODO: the order of sums, and what a row depends on.
// Traffic   TODO: how often each operand is read and written.
// See       kernels/cuda/{name}.cu, test tests/ops/{name}_test.cpp.
#include "grist/ops/{name}.h"

#include "grist/core/error.h"
#include "kernels/backends.h"

namespace grist::cpu {{

void {name}(const Context& /*ctx*/, const ops::{struct}& /*a*/) {{
  throw Error(ExitCode::internal, "{name} is not written yet");
}}

}}  // namespace grist::cpu
""",
    "kernels/cuda/{name}.cu": """\
// {title}, CUDA.
//
// Shapes    x, y (N, D); f32 or bf16.
// Launch    TODO: what a thread, a warp and a block work on.
// Numerics  TODO: the order of sums; whether the bits are the CPU's.
// Traffic   TODO: how often each operand is read and written.
// See       kernels/cpu/{name}.cpp, test tests/ops/{name}_test.cpp.
#include "grist/ops/{name}.h"

#include "grist/core/error.h"
#include "kernels/backends.h"

namespace grist::cuda {{

void {name}(const Context& /*ctx*/, const ops::{struct}& /*a*/) {{
  throw Error(ExitCode::internal, "{name} is not written yet");
}}

}}  // namespace grist::cuda
""",
    "tests/ops/{name}_test.cpp": """\
// {title}: the formula in float64, and operands that do not fit.
#include "grist/ops/{name}.h"

#include <gtest/gtest.h>

#include "grist/core/error.h"
#include "support/compare.h"
#include "support/gradient.h"

namespace grist {{
namespace {{

using test::CpuContext;
using test::view;

struct Case {{
  std::int64_t N, D;
}};

class {struct} : public testing::TestWithParam<Case> {{}};

TEST_P({struct}, MatchesFormula) {{
  const Case c = GetParam();
  const CpuContext ctx;
  const auto x = test::normals(c.N * c.D, "x");
  std::vector<float> y(x.size());

  ops::{name}(*ctx, {{.y = view(y, {{c.N, c.D}}), .x = view(x, {{c.N, c.D}})}});

  EXPECT_TRUE(test::close(y, test::widen(x), {{1e-6, 1e-7}}));  // TODO: the formula
}}

INSTANTIATE_TEST_SUITE_P(Shapes, {struct},
                         testing::Values(Case{{0, 4}}, Case{{1, 1}}, Case{{3, 257}}, Case{{16, 64}}));

TEST({struct}Errors, RefusesOperandsThatDoNotFit) {{
  const CpuContext ctx;
  const std::vector<float> x(6);
  std::vector<float> y(8);

  EXPECT_THROW(ops::{name}(*ctx, {{.y = view(y, {{2, 4}}), .x = view(x, {{2, 3}})}}), Error);
}}

}}  // namespace
}}  // namespace grist
""",
}

# List file -> the entry, and the command whose arguments it joins.
ENTRIES = {
    "src/ops/CMakeLists.txt": ("{name}.cpp", "grist_module(ops "),
    "kernels/cpu/CMakeLists.txt": ("{name}.cpp", "grist_module(kernels_cpu "),
    "kernels/cuda/CMakeLists.txt": ("{name}.cu", "set(GRIST_CUDA_SOURCES\n"),
    "tests/ops/CMakeLists.txt": ("{name}_test.cpp", "grist_test(ops "),
}
BACKENDS = "kernels/backends.h"


class Problem(Exception):
    """Nothing was written, and this says why."""


def words(name):
    struct = "".join(part.capitalize() for part in name.split("_"))
    return {"name": name, "struct": struct, "title": name.replace("_", " ").capitalize()}


def with_entry(text, entry, command):
    """A CMake list with one more file, before the first that comes after it in the alphabet."""
    begin = text.index(command) + len(command)
    files = re.compile(r"(?:^|(?<=\s))[\w/]+\.(?:cpp|cu)\b")
    end = text.index(")", begin)
    for match in files.finditer(text, begin, end):
        if match[0] > entry:
            gap = re.search(r"\s+$", text[:match.start()])[0] if "\n" in command else " "
            return text[:match.start()] + entry + gap + text[match.start():]
        last = match.end()
    return text[:last] + " " + entry + text[last:]


def with_operation(text, name, struct):
    """backends.h with a line at the end of the list; its backslashes stay in one column."""
    lines = text.splitlines()
    last = max(i for i, line in enumerate(lines) if re.match(r"  X\(\w+, \w+\)", line))
    column = lines[last - 1].rindex("\\")
    lines[last] = lines[last].ljust(column) + "\\"
    lines.insert(last + 1, f"  X({name}, {struct})")
    return "\n".join(lines) + "\n"


def begin(name, root):
    """Writes everything; returns the paths."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise Problem(f"'{name}' is no name: small letters, digits and underscores, e.g. soft_cap")
    given = words(name)
    new = {path.format(**given): text.format(**given) for path, text in FILES.items()}
    for path in new:
        if (root / path).exists():
            raise Problem(f"{path} is there already")
    text = (root / BACKENDS).read_text(encoding="utf-8")
    if re.search(rf"X\({name},", text):
        raise Problem(f"{BACKENDS} lists {name} already")
    new[BACKENDS] = with_operation(text, name, given["struct"])
    for path, (entry, command) in ENTRIES.items():
        text = (root / path).read_text(encoding="utf-8")
        new[path] = with_entry(text, entry.format(**given), command)
    for path, text in new.items():
        (root / path).write_text(text, encoding="utf-8")
    return list(new)


def main():
    if not 2 <= len(sys.argv) <= 3:
        print(__doc__)
        return 64
    default = pathlib.Path(__file__).resolve().parent.parent
    try:
        paths = begin(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default)
    except Problem as problem:
        print(f"new-op: {problem}", file=sys.stderr)
        return 64
    print("\n".join(paths))
    print("next: docs/adding-an-op.md; scripts/dev test cpu -R " + words(sys.argv[1])["struct"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
