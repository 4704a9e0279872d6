// The list of row tiles: where each expert's rows are cut is known only on the device.
//
// Shapes    offsets (E+1) -> at most tiles_of(R, height) + E tiles, empty ones last.
// Launch    a block of 128 threads an expert, and one for the empty tiles.
// Numerics  integers.
// Traffic   offsets are read once a block, 16 bytes written a tile.
// See       kernels/cuda/grouped_matmul.cuh, test tests/cuda/experts_test.cpp.
#include "grist/core/memory.h"
#include "grouped_matmul.cuh"

namespace grist::cuda {

namespace {

constexpr int kThreads = 128;

// Block e lists the tiles of expert e, the last block the empty ones. Each counts the tiles before
// its own: E is small.
__global__ void list_row_tiles_kernel(RowTile* tiles, const std::int32_t* offsets, int experts,
                                      int height, int bound) {
  __shared__ int counts[kThreads / kWarp];
  const int e = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  int own = 0;
  for (int i = thread; i < e; i += kThreads) own += tiles_of(offsets[i + 1] - offsets[i], height);
  const int first = block_sum(own, counts);
  if (e == experts) {
    for (int i = first + thread; i < bound; i += kThreads) tiles[i] = {0, 0, 0, 0};
    return;
  }
  const int end = offsets[e + 1];
  for (int i = thread;; i += kThreads) {
    const int begin = offsets[e] + i * height;
    if (begin >= end) break;
    tiles[first + i] = {e, begin, min(end, begin + height), 0};
  }
}

}  // namespace

const RowTile* list_row_tiles(const Context& ctx, const std::int32_t* offsets, int experts,
                              int height, int bound) {
  auto* tiles = ctx.scratch->allocate<RowTile>(bound);
  launch(list_row_tiles_kernel, static_cast<unsigned>(experts) + 1, kThreads, 0, stream_of(ctx),
         tiles, offsets, experts, height, bound);
  return tiles;
}

}  // namespace grist::cuda
