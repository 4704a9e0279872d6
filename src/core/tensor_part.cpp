#include "grist/core/tensor_part.h"

#include <vector>

#include "grist/core/check.h"

namespace grist {

namespace {

// Every part is at most three of these: the rest of a row, whole rows of the window, the start of a
// row.
struct Rectangle {
  std::int64_t top = 0, bottom = 0, left = 0, right = 0;
};

void add_rectangles(const TensorPart& p, std::int64_t tensor_columns, std::vector<Rectangle>& out) {
  const std::int64_t width = p.is_flat() ? tensor_columns : p.columns;
  const auto add = [&](std::int64_t top, std::int64_t bottom, std::int64_t left,
                       std::int64_t right) {
    if (top < bottom && left < right)
      out.push_back({top, bottom, p.first_column + left, p.first_column + right});
  };
  const std::int64_t top = p.begin / width, bottom = p.end / width;
  const std::int64_t left = p.begin % width, right = p.end % width;
  if (top == bottom) {
    add(top, top + 1, left, right);
    return;
  }
  if (left > 0) add(top, top + 1, left, width);
  add(left > 0 ? top + 1 : top, bottom, 0, width);
  add(bottom, bottom + 1, 0, right);
}

// Notes the first hole and the first overlap that [begin, end) shows behind `next`; moves `next`.
void take(Tiling& t, std::int64_t begin, std::int64_t end, std::int64_t row_start,
          std::int64_t& next) {
  if (begin > next && !t.hole) t.hole = row_start + next;
  if (begin < next && !t.twice) t.twice = row_start + begin;
  next = std::max(next, end);
}

Tiling flat_tiling(std::vector<TensorPart> parts, std::int64_t numel) {
  std::sort(parts.begin(), parts.end(),
            [](const TensorPart& a, const TensorPart& b) { return a.begin < b.begin; });
  Tiling t;
  std::int64_t next = 0;
  for (const TensorPart& p : parts)
    if (p.size() > 0) take(t, p.begin, p.end, 0, next);
  if (next < numel && !t.hole) t.hole = next;
  return t;
}

// Rows between two edges look alike: each such band is judged as one row.
Tiling banded_tiling(std::vector<Rectangle> all, const Shape& shape) {
  const std::int64_t columns = columns_of(shape);
  std::vector<std::int64_t> edges = {0, rows_of(shape)};
  for (const Rectangle& r : all) edges.insert(edges.end(), {r.top, r.bottom});
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  std::sort(all.begin(), all.end(),
            [](const Rectangle& a, const Rectangle& b) { return a.left < b.left; });
  Tiling t;
  for (std::size_t i = 0; i + 1 < edges.size() && !(t.hole && t.twice); ++i) {
    const std::int64_t start = edges[i] * columns;
    std::int64_t next = 0;
    for (const Rectangle& r : all)
      if (r.top <= edges[i] && edges[i] < r.bottom) take(t, r.left, r.right, start, next);
    if (next < columns && !t.hole) t.hole = start + next;
  }
  return t;
}

}  // namespace

std::int64_t columns_of(const Shape& shape) {
  return shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
}

std::int64_t rows_of(const Shape& shape) {
  const std::int64_t columns = columns_of(shape);
  return columns == 0 ? 0 : shape.numel() / columns;
}

TensorPart whole_part(const Shape& shape) {
  return {.begin = 0, .end = shape.numel()};
}

TensorPart block_part(const Shape& shape, std::int64_t row_begin, std::int64_t row_end,
                      std::int64_t column_begin, std::int64_t column_end) {
  const std::int64_t all = columns_of(shape), width = column_end - column_begin;
  GRIST_CHECK(0 <= row_begin && row_begin <= row_end && row_end <= rows_of(shape) &&
                  0 <= column_begin && column_begin < column_end && column_end <= all,
              "rows [{}, {}) x columns [{}, {}) of {}", row_begin, row_end, column_begin,
              column_end, shape.str());
  const bool flat = width == all;
  return {.begin = row_begin * width,
          .end = row_end * width,
          .first_column = flat ? 0 : column_begin,
          .columns = flat ? 0 : width};
}

bool fits(const TensorPart& p, const Shape& shape) {
  if (p.begin < 0 || p.end < p.begin) return false;
  if (p.is_flat()) return p.first_column == 0 && p.end <= shape.numel();
  const std::int64_t all = columns_of(shape);
  return 0 < p.columns && p.columns < all && 0 <= p.first_column &&
         p.first_column <= all - p.columns && p.end <= rows_of(shape) * p.columns;
}

bool is_whole(const TensorPart& p, const Shape& shape) {
  return p.is_flat() && p.begin == 0 && p.end == shape.numel();
}

bool overlap(const TensorPart& a, const TensorPart& b, const Shape& shape) {
  if (a.is_flat() && b.is_flat()) return std::max(a.begin, b.begin) < std::min(a.end, b.end);
  std::vector<Rectangle> of_a, of_b;
  if (a.size() > 0) add_rectangles(a, columns_of(shape), of_a);
  if (b.size() > 0) add_rectangles(b, columns_of(shape), of_b);
  for (const Rectangle& x : of_a)
    for (const Rectangle& y : of_b)
      if (std::max(x.top, y.top) < std::min(x.bottom, y.bottom) &&
          std::max(x.left, y.left) < std::min(x.right, y.right))
        return true;
  return false;
}

Tiling tiling(std::span<const TensorPart> parts, const Shape& shape) {
  if (std::all_of(parts.begin(), parts.end(), [](const TensorPart& p) { return p.is_flat(); }))
    return flat_tiling({parts.begin(), parts.end()}, shape.numel());
  std::vector<Rectangle> all;
  for (const TensorPart& p : parts)
    if (p.size() > 0) add_rectangles(p, columns_of(shape), all);
  return banded_tiling(std::move(all), shape);
}

}  // namespace grist
