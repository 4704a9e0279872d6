#pragma once
// RMSNorm's rows: kLanes threads a row (8, a warp or the block, by the row's width), each with
// every kLanes-th vector of it, the first kHeld of them in registers between the two passes over
// the row.
#include "elementwise.cuh"

namespace grist::cuda {

// How a row is spread over threads.
template <int kRowLanes, int kRowHeld, int kChunk> struct RowShape {
  static constexpr int kLanes = kRowLanes;
  static constexpr int kHeld = kRowHeld;
  static constexpr int kGroups = kBlockThreads / kRowLanes;
  static constexpr int kChunkRows = kChunk;  // of dw
};
using NarrowRow = RowShape<8, 2, 256>;
using WarpRow = RowShape<kWarp, 8, 64>;
using BlockRow = RowShape<kBlockThreads, 4, 32>;

template <class F> void for_row_shape(std::int64_t vectors, F&& f) {
  if (vectors <= NarrowRow::kLanes * NarrowRow::kHeld)
    f(NarrowRow{});
  else if (vectors <= WarpRow::kLanes * WarpRow::kHeld)
    f(WarpRow{});
  else
    f(BlockRow{});
}

// Sum over the threads of a row. `shared`: a float a warp, for rows of a whole block.
template <int kLanes> __device__ inline float row_sum(float x, float* shared) {
  if constexpr (kLanes > kWarp) {
    return block_sum(x, shared);
  } else {
    for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
    return x;
  }
}

}  // namespace grist::cuda
