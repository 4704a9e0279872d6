// Matrix multiplication, CPU: choice of instruction set, packing, blocks, tiles over threads.
//
// A block of A is copied into a workspace 256 of the summed dim at a time (gathering its rows on
// the way), then every panel of B is multiplied with all its rows: the 32 KiB of a panel's part
// stay in L1, the copy of A in L2, C is stored and loaded again between parts, which keeps each
// output one chain.
#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <cstring>

namespace grist::cpu {

// ---- instruction sets -------------------------------------------------------------------------

extern const IsaKernels kPortableKernels;
#ifdef GRIST_X86_KERNELS
extern const IsaKernels kAvx2Kernels;
extern const IsaKernels kAvx512Kernels;
#endif

const IsaKernels* isa_kernels(Isa isa) {
#ifdef GRIST_X86_KERNELS
  if (isa == Isa::avx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? &kAvx512Kernels
                                                                                   : nullptr;
  }
  if (isa == Isa::avx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2Kernels
                                                                           : nullptr;
  }
#endif
  return isa == Isa::portable ? &kPortableKernels : nullptr;
}

const IsaKernels& native_kernels() {
  static const IsaKernels& best = []() -> const IsaKernels& {
    for (const Isa isa : {Isa::avx512, Isa::avx2}) {
      if (const IsaKernels* k = isa_kernels(isa)) return *k;
    }
    return kPortableKernels;
  }();
  return best;
}

// ---- packing ----------------------------------------------------------------------------------

std::int64_t panel_floats(std::int64_t depth, std::int64_t cols) {
  return (cols + kPanelColumns - 1) / kPanelColumns * kPanelColumns * depth;
}

void pack_panels(float* out, const Rows& b, std::int64_t depth, std::int64_t cols) {
  for (std::int64_t col = 0; col < cols; col += kPanelColumns) {
    const std::int64_t n = std::min(kPanelColumns, cols - col);
    for (std::int64_t k = 0; k < depth; ++k, out += kPanelColumns) {
      const float* from = b[k] + col;
      if (n == kPanelColumns) {
        std::memcpy(out, from, kPanelColumns * sizeof(float));
      } else {
        std::fill(std::copy_n(from, n, out), out + kPanelColumns, 0.0F);
      }
    }
  }
}

void pack_panels_transposed(float* out, const Rows& w, std::int64_t depth, std::int64_t cols) {
  constexpr std::int64_t kRun = 16;  // one cache line of each source row at a time
  for (std::int64_t col = 0; col < cols; col += kPanelColumns, out += depth * kPanelColumns) {
    const std::int64_t n = std::min(kPanelColumns, cols - col);
    if (n < kPanelColumns) std::fill_n(out, depth * kPanelColumns, 0.0F);
    for (std::int64_t begin = 0; begin < depth; begin += kRun) {
      const std::int64_t end = std::min(depth, begin + kRun);
      for (std::int64_t j = 0; j < n; ++j) {
        const float* from = w[col + j];
        for (std::int64_t k = begin; k < end; ++k) out[k * kPanelColumns + j] = from[k];
      }
    }
  }
}

// ---- inside one task --------------------------------------------------------------------------

namespace {
constexpr std::int64_t kMaxTransposedRows = 256;
constexpr std::int64_t kTransposedCols = 1024;                 // of one tile of the driver
constexpr std::int64_t kTransposedFloats = 256 * kDepthBlock;  // of packed B
static_assert(kMaxTransposedRows <= kRowStride);
}  // namespace

std::int64_t block_workspace_floats() {
  // Packed B: each panel one row longer than it is deep; at most 64 Ki columns of depth 1.
  return std::max(kMaxBlockRows * kRowStride, kDepthBlock * kRowStride + 2 * kTransposedFloats);
}

namespace {

// Copies rows x depth of A from its column k into the workspace.
void copy_rows(float* workspace, const Rows& a, std::int64_t rows, std::int64_t k,
               std::int64_t depth) {
  const auto bytes = static_cast<std::size_t>(depth) * sizeof(float);
  for (std::int64_t i = 0; i < rows; ++i) std::memcpy(workspace + i * kRowStride, a[i] + k, bytes);
}

// The hint for the block that begins at row `row` and column k of A.
NextBlock next_block(const BlockMultiply& m, std::int64_t row, std::int64_t k) {
  if (k >= m.depth) row += kMaxBlockRows, k = 0;
  if (row >= m.rows) return m.next;
  const Rows a = m.a.from(row);
  return {.a = {a.data + k, a.stride, a.index, std::min(kMaxBlockRows, m.rows - row)},
          .b = {},
          .panel = m.panels + k * kPanelColumns};
}

// Packs `cols` columns of B, depth rows, panel_stride floats apart. Row by row: memory likes that
// better than panel by panel.
void pack_rows(float* panels, std::int64_t panel_stride, const Rows& b, std::int64_t depth,
               std::int64_t cols) {
  const std::int64_t whole = cols / kPanelColumns * kPanelColumns;
  for (std::int64_t k = 0; k < depth; ++k) {
    const float* from = b[k];
    float* to = panels + k * kPanelColumns;
    for (std::int64_t col = 0; col < whole; col += kPanelColumns, to += panel_stride)
      std::memcpy(to, from + col, kPanelColumns * sizeof(float));
    if (whole < cols) std::fill(std::copy(from + whole, from + cols, to), to + kPanelColumns, 0.0F);
  }
}

}  // namespace

void multiply_block(const IsaKernels& isa, const BlockMultiply& m, float* workspace) {
  for (std::int64_t row = 0; row < m.rows; row += kMaxBlockRows) {
    const std::int64_t rows = std::min(kMaxBlockRows, m.rows - row);
    // Depth 0 still has to write the zeros.
    for (std::int64_t k = 0; k == 0 || k < m.depth; k += kDepthBlock) {
      TileBlock t{.c = m.c + row * m.c_stride,
                  .c_stride = m.c_stride,
                  .a = workspace,
                  .a_stride = kRowStride,
                  .b = m.panels + k * kPanelColumns,
                  .b_stride = m.depth * kPanelColumns,
                  .rows = rows,
                  .cols = m.cols,
                  .depth = std::min(kDepthBlock, m.depth - k),
                  .accumulate = m.accumulate || k > 0};
      copy_rows(workspace, m.a.from(row), rows, k, t.depth);
      const NextBlock next = next_block(m, row, k + kDepthBlock);
      if (m.second_c == nullptr) {
        t.next = next;
        isa.multiply_rows(t);
        continue;
      }
      t.next.panel = m.second_panels + k * kPanelColumns;
      isa.multiply_rows(t);
      t.next = next;
      t.c = m.second_c + row * m.c_stride;
      t.b = m.second_panels + k * kPanelColumns;
      isa.multiply_rows(t);
    }
  }
}

void multiply_transposed_block(const IsaKernels& isa, const TransposedBlockMultiply& m,
                               float* workspace) {
  float* panels = workspace + kDepthBlock * kRowStride;
  // As many columns as keep the packed part of B within 256 KiB.
  const std::int64_t most_depth = std::clamp<std::int64_t>(m.depth, 1, kDepthBlock);
  const std::int64_t max_cols = kTransposedFloats / most_depth / kPanelColumns * kPanelColumns;
  for (std::int64_t col = 0; col < m.cols; col += max_cols) {
    for (std::int64_t row = 0; row < m.rows; row += kMaxTransposedRows) {
      for (std::int64_t k = 0; k == 0 || k < m.depth; k += kDepthBlock) {
        Rows b = m.b.from(k);
        b.data += col;
        TileBlock t{.c = m.c + row * m.c_stride + col,
                    .c_stride = m.c_stride,
                    .a = workspace,
                    .a_stride = kRowStride,
                    .b = panels,
                    .b_stride = (std::min(kDepthBlock, m.depth - k) + 1) * kPanelColumns,
                    .rows = std::min(kMaxTransposedRows, m.rows - row),
                    .cols = std::min(max_cols, m.cols - col),
                    .depth = std::min(kDepthBlock, m.depth - k),
                    .accumulate = m.accumulate || k > 0};
        copy_rows(workspace, m.a.from(k), t.depth, row, t.rows);
        pack_rows(panels, t.b_stride, b, t.depth, t.cols);
        if (col + max_cols >= m.cols && row + kMaxTransposedRows >= m.rows &&
            k + kDepthBlock >= m.depth)
          t.next = m.next;
        isa.multiply_columns(t);
      }
    }
  }
}

// ---- over threads -----------------------------------------------------------------------------

namespace {

constexpr std::int64_t kMinTileRows = 28;

std::int64_t pieces(std::int64_t n, std::int64_t most) {
  return (n + most - 1) / most;
}

// How a plan's rectangles are cut; independent of results, so it may depend on the threads.
struct Cut {
  std::int64_t max_rows, col_step;
};

std::int64_t count_tiles(const TilePlan& plan, const Cut& cut) {
  std::int64_t row_pieces = 0;
  for (std::size_t g = 0; g + 1 < plan.offsets.size(); ++g)
    row_pieces += pieces(plan.offsets[g + 1] - plan.offsets[g], cut.max_rows);
  return row_pieces * pieces(plan.cols, cut.col_step);
}

std::int64_t column_step(const TilePlan& plan, std::int64_t max_cols) {
  const std::int64_t even = pieces(plan.cols, pieces(plan.cols, max_cols));
  return pieces(even, plan.min_cols) * plan.min_cols;
}

// Halves columns, then rows, until every thread has a few tiles to balance with.
Cut choose_cut(const TilePlan& plan, int workers) {
  Cut cut{plan.max_rows, column_step(plan, std::max(plan.max_cols, plan.min_cols))};
  if (workers == 1) return cut;
  while (count_tiles(plan, cut) < 4 * workers) {
    if (cut.col_step > plan.min_cols) {
      cut.col_step = column_step(plan, std::max(plan.min_cols, cut.col_step / 2));
    } else if (cut.max_rows > kMinTileRows) {
      cut.max_rows = std::max(kMinTileRows, cut.max_rows / 2);
    } else {
      break;
    }
  }
  return cut;
}

}  // namespace

std::span<const Tile> plan_tiles(const Context& ctx, const TilePlan& plan) {
  if (plan.cols == 0) return {};
  const Cut cut = choose_cut(plan, ctx.num_workers());
  const std::int64_t count = count_tiles(plan, cut);
  Tile* tiles = ctx.scratch->allocate<Tile>(count);
  Tile* next = tiles;
  for (std::size_t g = 0; g + 1 < plan.offsets.size(); ++g) {
    const std::int64_t first = plan.offsets[g], rows = plan.offsets[g + 1] - first;
    const std::int64_t cuts = pieces(rows, cut.max_rows);
    for (std::int64_t col = 0; col < plan.cols && rows > 0; col += cut.col_step) {
      for (std::int64_t i = 0; i < cuts; ++i) {
        *next++ = {.group = static_cast<std::int32_t>(g),
                   .row_begin = static_cast<std::int32_t>(first + rows * i / cuts),
                   .row_end = static_cast<std::int32_t>(first + rows * (i + 1) / cuts),
                   .col_begin = static_cast<std::int32_t>(col),
                   .col_end = static_cast<std::int32_t>(std::min(plan.cols, col + cut.col_step))};
      }
    }
  }
  return {tiles, static_cast<std::size_t>(next - tiles)};
}

void for_each_tile(const Context& ctx, std::span<const Tile> tiles,
                   const std::function<void(const Tile&, const Tile*, float*)>& task) {
  const std::int64_t floats = block_workspace_floats();
  float* workspaces = ctx.scratch->allocate<float>(floats * ctx.num_workers());
  // A worker takes runs of neighbours: their operands are close, and it knows what comes next.
  const auto count = static_cast<std::int64_t>(tiles.size());
  const std::int64_t run = std::clamp<std::int64_t>(count / (8 * ctx.num_workers()), 1, 16);
  parallel_for(ctx, pieces(count, run), [&](std::int64_t i, int worker) {
    for (std::int64_t j = i * run; j < std::min(count, (i + 1) * run); ++j) {
      const Tile* tile = &tiles[static_cast<std::size_t>(j)];
      task(*tile, j + 1 < count ? tile + 1 : nullptr, workspaces + worker * floats);
    }
  });
}

NextBlock next_block(const Rows& a, const float* panels, const Tile& next) {
  const Rows rows = a.from(next.row_begin);
  return {.a = {rows.data, rows.stride, rows.index, next.row_end - next.row_begin},
          .b = {},
          .panel = panels};
}

void multiply_grouped(const Context& ctx, const GroupedMultiply& m) {
  const ScratchScope scope(ctx.scratch);
  const IsaKernels& isa = native_kernels();
  const auto panels = [&](const Tile& t) {
    return m.panels + t.group * m.group_floats + t.col_begin * m.depth;
  };
  const auto tiles = plan_tiles(ctx, {.offsets = m.offsets, .cols = m.cols});
  for_each_tile(ctx, tiles, [&](const Tile& t, const Tile* next, float* workspace) {
    BlockMultiply block{.c = m.c + t.row_begin * m.cols + t.col_begin,
                        .c_stride = m.cols,
                        .a = m.a.from(t.row_begin),
                        .panels = panels(t),
                        .rows = t.row_end - t.row_begin,
                        .cols = t.col_end - t.col_begin,
                        .depth = m.depth,
                        .accumulate = m.accumulate};
    if (next != nullptr) block.next = next_block(m.a, panels(*next), *next);
    multiply_block(isa, block, workspace);
  });
}

void multiply_grouped_transposed(const Context& ctx, const GroupedTransposedMultiply& m) {
  const ScratchScope scope(ctx.scratch);
  const IsaKernels& isa = native_kernels();
  // The tiles cut the outputs, of which every group has the same number.
  auto* outputs = ctx.scratch->allocate<std::int32_t>(static_cast<std::int64_t>(m.offsets.size()));
  for (std::size_t g = 0; g < m.offsets.size(); ++g)
    outputs[g] = static_cast<std::int32_t>(static_cast<std::int64_t>(g) * m.rows);
  const auto tiles = plan_tiles(ctx, {.offsets = {outputs, m.offsets.size()},
                                      .cols = m.cols,
                                      .max_rows = kMaxTransposedRows,
                                      .max_cols = kTransposedCols});
  const auto first_row = [&](const Tile& t) {
    return m.offsets[static_cast<std::size_t>(t.group)];
  };
  const auto depth = [&](const Tile& t) {
    return m.offsets[static_cast<std::size_t>(t.group) + 1] - first_row(t);
  };
  const auto operand_a = [&](const Tile& t) {
    Rows a = m.a.from(first_row(t));
    a.data += t.row_begin - t.group * m.rows;
    return a;
  };
  const auto operand_b = [&](const Tile& t) {
    Rows b = m.b.from(first_row(t));
    b.data += t.col_begin;
    return b;
  };
  for_each_tile(ctx, tiles, [&](const Tile& t, const Tile* next, float* workspace) {
    TransposedBlockMultiply block{.c = m.c + t.row_begin * m.cols + t.col_begin,
                                  .c_stride = m.cols,
                                  .a = operand_a(t),
                                  .b = operand_b(t),
                                  .rows = t.row_end - t.row_begin,
                                  .cols = t.col_end - t.col_begin,
                                  .depth = depth(t),
                                  .accumulate = m.accumulate};
    if (next != nullptr) {
      const Rows a = operand_a(*next), b = operand_b(*next);
      const std::int64_t rows = std::min<std::int64_t>(kDepthBlock, depth(*next));
      const auto kibs = [](std::int64_t floats) { return (floats + 255) / 256; };
      block.next = {.a = {a.data, a.stride, a.index, rows, kibs(next->row_end - next->row_begin)},
                    .b = {b.data, b.stride, b.index, rows, kibs(next->col_end - next->col_begin)}};
    }
    multiply_transposed_block(isa, block, workspace);
  });
}

}  // namespace grist::cpu
