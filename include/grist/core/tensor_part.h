#pragma once
// A part of a tensor that is cut over ranks, as a rank holds it: contiguous, row-major.
//
// A tensor is seen as a matrix: its last extent is the columns, the others together are the rows. A
// part lies in a window of columns that all rows share, and is a range of the window's elements,
// counted row after row. Three cuts are the same type:
//   a flat range      the window has all columns: what ZeRO cuts, wherever rows end
//   rows x columns    a range that begins and ends with the window's rows
//   a range of that   what ZeRO cuts of a matrix that is cut along its columns already
// docs/decisions/0017 says why.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>

#include "grist/core/tensor.h"

namespace grist {

struct TensorPart {
  std::int64_t begin = 0;  // elements [begin, end) of the window
  std::int64_t end = 0;
  std::int64_t first_column = 0;
  std::int64_t columns = 0;  // the window's width; 0: all columns of the tensor

  std::int64_t size() const { return end - begin; }
  bool is_flat() const { return columns == 0; }
  // Elements [from, to) of this part.
  TensorPart sub(std::int64_t from, std::int64_t to) const {
    return {begin + from, begin + to, first_column, columns};
  }
  bool operator==(const TensorPart&) const = default;
};

std::int64_t columns_of(const Shape& shape);  // 1 for a scalar
std::int64_t rows_of(const Shape& shape);     // 0 when there are no elements

TensorPart whole_part(const Shape& shape);
// Rows [row_begin, row_end) x columns [column_begin, column_end); flat when these are all columns.
TensorPart block_part(const Shape& shape, std::int64_t row_begin, std::int64_t row_end,
                      std::int64_t column_begin, std::int64_t column_end);
// The window lies in the tensor and has fewer columns than it (all columns are written as 0), and
// the range lies in the window.
bool fits(const TensorPart& part, const Shape& shape);
bool is_whole(const TensorPart& part, const Shape& shape);

// Of element i of the part, its place in the flattened tensor with `tensor_columns` columns.
inline std::int64_t place_in_tensor(const TensorPart& part, std::int64_t tensor_columns,
                                    std::int64_t i) {
  const std::int64_t at = part.begin + i;
  if (part.is_flat()) return at;
  return at / part.columns * tensor_columns + part.first_column + at % part.columns;
}

// Elements that two parts of a tensor share, `count` in a row in both.
struct CommonRun {
  std::int64_t at_a = 0;  // first one, counted in a
  std::int64_t at_b = 0;
  std::int64_t count = 0;
};

namespace detail {
// Row `row` of a part: flattened elements [begin, end) of the tensor; element `begin` is the part's
// element `at`.
struct RowRun {
  std::int64_t begin = 0, end = 0, at = 0;
};
inline RowRun row_of(const TensorPart& p, std::int64_t tensor_columns, std::int64_t row) {
  const std::int64_t width = p.is_flat() ? tensor_columns : p.columns;
  const std::int64_t from = std::max(p.begin, row * width), to = std::min(p.end, (row + 1) * width);
  const std::int64_t shift = row * tensor_columns + p.first_column - row * width;
  return {from + shift, std::max(from, to) + shift, from - p.begin};
}
inline std::int64_t first_row(const TensorPart& p, std::int64_t tensor_columns) {
  return p.begin / (p.is_flat() ? tensor_columns : p.columns);
}
inline std::int64_t end_row(const TensorPart& p, std::int64_t tensor_columns) {
  const std::int64_t width = p.is_flat() ? tensor_columns : p.columns;
  return (p.end + width - 1) / width;
}
}  // namespace detail

// visit(CommonRun) for all runs, ascending. One run where both are flat.
template <class F>
void for_each_common_run(const TensorPart& a, const TensorPart& b, std::int64_t tensor_columns,
                         const F& visit) {
  if (a.size() == 0 || b.size() == 0) return;
  if (a.is_flat() && b.is_flat()) {
    const std::int64_t from = std::max(a.begin, b.begin), to = std::min(a.end, b.end);
    if (from < to) visit(CommonRun{from - a.begin, from - b.begin, to - from});
    return;
  }
  const std::int64_t first =
      std::max(detail::first_row(a, tensor_columns), detail::first_row(b, tensor_columns));
  const std::int64_t last =
      std::min(detail::end_row(a, tensor_columns), detail::end_row(b, tensor_columns));
  for (std::int64_t row = first; row < last; ++row) {
    const detail::RowRun x = detail::row_of(a, tensor_columns, row);
    const detail::RowRun y = detail::row_of(b, tensor_columns, row);
    const std::int64_t from = std::max(x.begin, y.begin), to = std::min(x.end, y.end);
    if (from < to) visit(CommonRun{x.at + from - x.begin, y.at + from - y.begin, to - from});
  }
}

bool overlap(const TensorPart& a, const TensorPart& b, const Shape& shape);

// Which elements of a tensor its parts leave out, or have twice: flattened, one of each kind where
// there is one. Parts that fit().
struct Tiling {
  std::optional<std::int64_t> hole, twice;
};
Tiling tiling(std::span<const TensorPart> parts, const Shape& shape);

}  // namespace grist
