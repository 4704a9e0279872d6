#pragma once
// Which rows a thread block works on: the rows of each expert are cut into blocks of 128, and the
// list of them is made on the device, since only the device knows expert_offsets.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/launch.h"

namespace grist::cuda::sm90 {

constexpr int kBlockRows = 128;

struct RowBlock {
  int expert, row, rows;  // rows [row, row + rows) of all rows; 1 to kBlockRows
};

struct RowBlockList {
  const RowBlock* blocks = nullptr;
  const int* count = nullptr;
};

// Host-known bound of the list's length.
inline std::int64_t most_row_blocks(std::int64_t rows, std::int64_t experts) {
  return rows / kBlockRows + experts;
}

// expert_offsets (E+1), or null: one expert has all `rows`. The list lies in ctx.scratch.
RowBlockList list_row_blocks(const Context& ctx, const int* expert_offsets, std::int64_t experts,
                             std::int64_t rows);

// Output tile t of an (expert rows) x `columns` matmul, columns counted in tiles. Eight row blocks
// share a column before the next column comes: their operands stay in the L2 cache.
struct RowTile {
  RowBlock block;
  int column;
};
__device__ inline RowTile row_tile(const RowBlockList& list, int count, int columns, int t) {
  constexpr int kGroup = 8;
  const int first = t / (kGroup * columns) * kGroup;
  const int size = min(kGroup, count - first);
  const int i = t - first * columns;
  return {list.blocks[first + i % size], i / size};
}

}  // namespace grist::cuda::sm90
