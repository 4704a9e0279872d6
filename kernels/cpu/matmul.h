#pragma once
// Matrix multiplication on the CPU: packing, a single-threaded block multiply for use inside a
// task, and the tiling that spreads a grouped product over threads.
//
// Every output is one fused multiply-add chain in ascending index of the summed dim. So instruction
// set, tile sizes, thread count, and the other rows of a block never change a bit.
//
// B is packed in panels of 32 columns, zero-padded: element (k, n) of a K-deep B is at
// panels[n / 32 * 32 * K + k * 32 + n % 32].
#include <cstdint>
#include <functional>
#include <span>

#include "grist/core/context.h"
#include "grist/ops/weight.h"
#include "kernels/cpu/isa.h"

namespace grist::cpu {

// Rows of a matrix, possibly chosen by an index: row i starts at data + (index ? index[i] : i) *
// stride.
struct Rows {
  const float* data = nullptr;
  std::int64_t stride = 0;
  const std::int32_t* index = nullptr;
  const float* operator[](std::int64_t i) const {
    return data + (index != nullptr ? index[i] : i) * stride;
  }
  Rows from(std::int64_t i) const {  // without the first i rows
    return index != nullptr ? Rows{data, stride, index + i} : Rows{data + i * stride, stride};
  }
};

// ---- packing ----------------------------------------------------------------------------------

std::int64_t panel_floats(std::int64_t depth, std::int64_t cols);  // multiple of 32
// B = b: row k of B is b[k], cols floats. `out` starts at the panel of b's first column.
void pack_panels(float* out, const Rows& b, std::int64_t depth, std::int64_t cols);
// B = w^T: column n of B is w[n], depth floats.
void pack_panels_transposed(float* out, const Rows& w, std::int64_t depth, std::int64_t cols);

// The CPU's WeightView: for each expert the panels of W^T (depth `in`, for y = x W^T), then those
// of W (depth `out`, for dx = dy W).
struct PackedWeight {
  const float* data = nullptr;
  std::int64_t experts = 1, out = 0, in = 0;
  const float* forward() const { return data; }
  const float* backward() const { return data + panel_floats(in, out); }
  // Floats from one expert's panels to the next one's.
  std::int64_t group_floats() const { return panel_floats(in, out) + panel_floats(out, in); }
};
PackedWeight packed_weight(const ops::WeightView& w);

// ---- inside one task --------------------------------------------------------------------------

// Floats of workspace that multiply_block and multiply_transposed_block need; 64-byte aligned.
std::int64_t block_workspace_floats();
inline constexpr std::int64_t kMaxBlockRows = 168;       // rows multiplied with a panel at a time
inline constexpr std::int64_t kMaxTransposedRows = 256;  // in multiply_transposed_block

// C = A B, or C += A B: A (rows, depth) as Rows, B packed `depth` deep, C (rows, cols) at c_stride.
// Any sizes; the panels' first column is C's first column. With two parts the same A also
// multiplies the panels at second_panels into second_c (SwiGLU's gate and up).
struct BlockMultiply {
  float* c = nullptr;
  std::int64_t c_stride = 0;
  Rows a;
  const float* panels = nullptr;
  std::int64_t rows = 0, cols = 0, depth = 0;
  bool accumulate = false;
  float* second_c = nullptr;
  const float* second_panels = nullptr;
  NextBlock next = {};  // of the block that follows; a hint
};
void multiply_block(const IsaKernels& isa, const BlockMultiply& m, float* workspace);

// C = A^T B, or C += A^T B, nothing packed: A (depth, rows), B (depth, cols), both as Rows.
struct TransposedBlockMultiply {
  float* c = nullptr;
  std::int64_t c_stride = 0;
  Rows a;
  Rows b;
  std::int64_t rows = 0, cols = 0, depth = 0;
  bool accumulate = false;
  NextBlock next = {};  // of the block that follows; a hint
};
void multiply_transposed_block(const IsaKernels& isa, const TransposedBlockMultiply& m,
                               float* workspace);

// Hints for `next`: the block that follows multiplies a's first `rows` rows with `panels`, or the
// first `rows` columns of a with the first `cols` of b.
NextBlock next_multiply(const Rows& a, std::int64_t rows, const float* panels);
NextBlock next_transposed(const Rows& a, std::int64_t rows, const Rows& b, std::int64_t cols,
                          std::int64_t depth);

// ---- over threads -----------------------------------------------------------------------------

// One task of a grouped product: a rectangle of one group's output.
struct Tile {
  std::int32_t group;
  std::int32_t row_begin, row_end;
  std::int32_t col_begin, col_end;
};

// Cuts every group's (rows, cols) rectangle into tiles, small enough for the caches and numerous
// enough for the threads. Rows of group g: [offsets[g], offsets[g + 1]).
struct TilePlan {
  std::span<const std::int32_t> offsets;
  std::int64_t cols = 0;
  std::int64_t max_rows = kMaxBlockRows;
  std::int64_t max_cols = 512;
  std::int64_t min_cols = 128;  // columns are cut at multiples of this; a multiple of 32, or cols
};
// Allocated from ctx.scratch: the caller holds a ScratchScope.
std::span<const Tile> plan_tiles(const Context& ctx, const TilePlan& plan);
// task(tile, next, workspace): `next` is the tile that this worker will most likely do next, or
// null. One workspace a worker, from ctx.scratch.
void for_each_tile(const Context& ctx, std::span<const Tile> tiles,
                   const std::function<void(const Tile&, const Tile*, float*)>& task);

// Row r of group g: c[r] (+)= a[r] B_g, with B_g packed at panels + g * group_floats.
struct GroupedMultiply {
  float* c = nullptr;  // c_stride = cols
  Rows a;
  const float* panels = nullptr;
  std::int64_t group_floats = 0;
  std::span<const std::int32_t> offsets;
  std::int64_t cols = 0, depth = 0;
  bool accumulate = false;
};
void multiply_grouped(const Context& ctx, const GroupedMultiply& m);  // needs ctx.scratch

// For every group: C_g (+)= A_g^T B_g over the group's rows; C_g (rows, cols) dense at c + g * rows
// * cols. A group without rows gives zeros (or keeps C_g when accumulating).
struct GroupedTransposedMultiply {
  float* c = nullptr;
  Rows a;
  Rows b;
  std::span<const std::int32_t> offsets;
  std::int64_t rows = 0, cols = 0;
  bool accumulate = false;
};
void multiply_grouped_transposed(const Context& ctx,
                                 const GroupedTransposedMultiply& m);  // needs ctx.scratch

}  // namespace grist::cpu
