// The list of row blocks for Hopper: at most 128 rows of one expert each.
//
// Shapes    expert_offsets (E+1), or none: one expert -> at most R / 128 + E blocks, and their
//           number.
// Launch    one block of 256 threads; a thread writes the row blocks of an expert.
// Numerics  integers.
// Traffic   offsets read twice, 12 bytes written a row block.
// See       kernels/cuda/sm90/row_blocks.cuh, test tests/cuda/sm90_experts_test.cpp.
#include "grist/core/memory.h"
#include "row_blocks.cuh"

namespace grist::cuda::sm90 {

namespace {

constexpr int kThreads = 256;

// Inclusive sum over the block's threads, in thread order.
__device__ int prefix_sum(int x, int* shared) {
  const int i = static_cast<int>(threadIdx.x);
  shared[i] = x;
  __syncthreads();
  for (int step = 1; step < kThreads; step *= 2) {
    const int before = i >= step ? shared[i - step] : 0;
    __syncthreads();
    shared[i] += before;
    __syncthreads();
  }
  return shared[i];
}

// One block; a thread writes the row blocks of an expert.
__global__ void list_row_blocks_kernel(RowBlock* blocks, int* count, const int* expert_offsets,
                                       int experts, int rows) {
  __shared__ int sums[kThreads];
  int listed = 0;
  for (int base = 0; base < experts; base += kThreads) {
    const int e = base + static_cast<int>(threadIdx.x);
    int begin = 0, end = 0;
    if (e < experts) {
      begin = expert_offsets == nullptr ? 0 : expert_offsets[e];
      end = expert_offsets == nullptr ? rows : expert_offsets[e + 1];
    }
    const int mine = (end - begin + kBlockRows - 1) / kBlockRows;
    const int first = listed + prefix_sum(mine, sums) - mine;
    for (int i = 0; i < mine; ++i) {
      const int row = begin + i * kBlockRows;
      blocks[first + i] = {e, row, min(kBlockRows, end - row)};
    }
    listed += sums[kThreads - 1];
    __syncthreads();
  }
  if (threadIdx.x == 0) *count = listed;
}

}  // namespace

RowBlockList list_row_blocks(const Context& ctx, const int* expert_offsets, std::int64_t experts,
                             std::int64_t rows) {
  auto* blocks = ctx.scratch->allocate<RowBlock>(most_row_blocks(rows, experts));
  auto* count = ctx.scratch->allocate<int>(1);
  launch(list_row_blocks_kernel, 1, kThreads, 0, stream_of(ctx), blocks, count, expert_offsets,
         static_cast<int>(experts), static_cast<int>(rows));
  return {blocks, count};
}

}  // namespace grist::cuda::sm90
