#pragma once
// Running sums of integers over a block.
#include "device.cuh"

namespace grist::cuda {

struct Scan {
  int before;  // sum over the threads before this one
  int total;   // over all
};

// A block of whole warps, all of its threads. `shared`: kWarp ints; free again when all threads
// have returned and synchronised.
__device__ inline Scan block_scan(int x, int* shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  int sum = x;
  for (int step = 1; step < kWarp; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += other;
  }
  __syncthreads();  // `shared` may still be read from a call before
  if (lane == kWarp - 1) shared[warp] = sum;
  __syncthreads();
  Scan s{sum - x, 0};
  for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) {
    if (w < warp) s.before += shared[w];
    s.total += shared[w];
  }
  return s;
}

}  // namespace grist::cuda
