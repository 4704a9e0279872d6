// Matrix multiplication over threads, CPU: a grouped product is cut into tiles, each tile is one
// task.
//
// Shapes    groups of rows, cut by offsets; all have the same number of columns.
// Launch    columns, then rows are halved until every worker has four tiles; a worker takes runs of
//           neighbours.
// Numerics  none: the cut may depend on the number of threads, because no result depends on the
//           cut.
// Traffic   neighbours share operands; the next tile's first lines are fetched ahead.
// See       kernels/cpu/matmul.h, tests tests/ops/linear_test.cpp, tests/ops/experts_test.cpp.
#include <algorithm>

#include "grist/core/check.h"
#include "grist/core/memory.h"
#include "kernels/cpu/matmul.h"

namespace grist::cpu {

namespace {

constexpr std::int64_t kMinTileRows = 28;
constexpr std::int64_t kTransposedCols = 1024;

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
  // A worker takes runs of neighbours: their operands are close, and it knows what comes next. Runs
  // get shorter towards the end, so that all workers finish together.
  const auto count = static_cast<std::int64_t>(tiles.size());
  auto* begins = ctx.scratch->allocate<std::int64_t>(count + 1);
  std::int64_t runs = 0;
  for (std::int64_t at = 0; at < count; ++runs) {
    begins[runs] = at;
    at += std::clamp<std::int64_t>((count - at) / (4 * ctx.num_workers()), 1, 16);
  }
  begins[runs] = count;
  parallel_for(ctx, runs, [&](std::int64_t i, int worker) {
    for (std::int64_t j = begins[i]; j < begins[i + 1]; ++j) {
      const Tile* tile = &tiles[static_cast<std::size_t>(j)];
      task(*tile, j + 1 < count ? tile + 1 : nullptr, workspaces + worker * floats);
    }
  });
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
    if (next != nullptr)
      block.next =
          next_multiply(m.a.from(next->row_begin), next->row_end - next->row_begin, panels(*next));
    multiply_block(isa, block, workspace);
  });
}

void multiply_grouped_transposed(const Context& ctx, const GroupedTransposedMultiply& m) {
  const ScratchScope scope(ctx.scratch);
  const IsaKernels& isa = native_kernels();
  GRIST_CHECK(static_cast<std::int64_t>(m.offsets.size()) * m.rows < INT32_MAX,
              "{} groups of {} outputs", m.offsets.size(), m.rows);
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
      block.next = next_transposed(operand_a(*next), next->row_end - next->row_begin,
                                   operand_b(*next), next->col_end - next->col_begin, depth(*next));
    }
    multiply_transposed_block(isa, block, workspace);
  });
}

}  // namespace grist::cpu
