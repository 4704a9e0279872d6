#pragma once
// Small things that kernels share: number formats, vector loads, reductions of fixed shape.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "grist/core/tensor.h"

namespace grist::cuda {

using bf16 = __nv_bfloat16;  // the device's form of grist::Bf16: the same bits

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffU;

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(bf16 x) {
  return __bfloat162float(x);
}
template <class T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) {
  return x;
}
template <> __device__ inline bf16 from_float<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// 16 bytes of T: the width of one load.
template <class T> struct alignas(16) Pack {
  static constexpr int kSize = 16 / static_cast<int>(sizeof(T));
  T v[kSize];
};

// Sum over the warp, the same in every lane: a butterfly, so its shape never changes.
template <class T> __device__ inline T warp_sum(T x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// Sum over a block of whole warps, the same in every thread: warps first, then the warps' sums in
// order. `shared`: one T a warp; free again when all threads have returned and synchronised.
template <class T> __device__ inline T block_sum(T x, T* shared) {
  x = warp_sum(x);
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  __syncthreads();  // `shared` may still be read from a call before
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum = shared[0];
  for (int w = 1; w < warps; ++w) sum += shared[w];
  return sum;
}

// Calls f<T>() for the dtype of activations.
template <class F> void for_dtype(DType dtype, F&& f) {
  if (dtype == DType::bf16)
    f(bf16{});
  else
    f(float{});
}

}  // namespace grist::cuda
