#pragma once
// One token's row, held by half a warp: lane i of 16 takes elements i, i + 16, ..., as the CPU's
// sums do (kernels/router_scalar.h), so sums have the CPU's bits. Both halves of a warp call these
// together.
#include "device.cuh"
#include "kernels/router_scalar.h"
#include "launch.h"

namespace grist::cuda {

constexpr int kTokenLanes = row::kLanes;

__device__ inline int token_lane() {
  return static_cast<int>(threadIdx.x) % kTokenLanes;
}

template <class T> __device__ inline T half_warp_sum(T x) {
  for (int step = kTokenLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
template <class T> __device__ inline T half_warp_max(T x) {
  for (int step = kTokenLanes / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, x, step);
    x = x > other ? x : other;
  }
  return x;
}

// x(j) for every j of a padded row of n, in the order of the CPU's sums.
template <class F> __device__ inline void for_own(int n, F&& f) {
  const int end = static_cast<int>(row::padded(n));
  for (int j = token_lane(); j < end; j += kTokenLanes) f(j);
}
template <class F> __device__ inline float row_sum(int n, F&& x) {
  float sum = 0;
  for_own(n, [&](int j) { sum += x(j); });
  return half_warp_sum(sum);
}
template <class F> __device__ inline float row_max(int n, F&& x) {
  float m = x(token_lane());
  for_own(n, [&](int j) {
    const float v = x(j);
    m = m > v ? m : v;
  });
  return half_warp_max(m);
}

// A row as its padded form.
struct PaddedRow {
  const float* x;
  int n;
  float pad;
  __device__ float operator()(int j) const { return j < n ? x[j] : pad; }
};

// softmax(x)[j] = exp(x[j] - max) * inverse.
struct Softmax {
  float max, sum, inverse;
  __device__ float operator()(float x) const { return row::exp_negative(x - max) * inverse; }
  __device__ float logsumexp() const {
    return max + static_cast<float>(log(static_cast<double>(sum)));
  }
};
template <class F> __device__ inline Softmax softmax_of(int n, F&& x) {
  const float m = row_max(n, x);
  const float sum = row_sum(n, [&](int j) { return row::exp_negative(x(j) - m); });
  return {m, sum, 1.0F / sum};
}

// Half a warp a token: the token of this thread, and the token's words of dynamic shared memory.
// Threads past the last token repeat it and store nothing.
struct TokenOfThread {
  std::int64_t n;
  bool live;
  int words;  // where the token's shared memory begins
};
__device__ inline TokenOfThread token_of_thread(std::int64_t num_tokens, int stride) {
  const int half = static_cast<int>(threadIdx.x) / kTokenLanes;
  const int per_block = static_cast<int>(blockDim.x) / kTokenLanes;
  const std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * per_block + half;
  const bool live = n < num_tokens;
  return {live ? n : num_tokens - 1, live, half * stride};
}

struct TokenGrid {
  unsigned blocks, threads;
  int stride;  // words of shared memory a token
  std::size_t shared_bytes;
};
// `words`: 4-byte words of shared memory a token, a multiple of 16. The two tokens of a warp use
// different banks.
inline TokenGrid token_grid(std::int64_t num_tokens, std::int64_t words) {
  const std::int64_t stride = words % 32 == 0 ? words + 16 : words;
  std::int64_t tokens = 48 * 1024 / (4 * stride) / 2 * 2;
  tokens = tokens < 2 ? 2 : tokens > 16 ? 16 : tokens;
  return {blocks_for(num_tokens, tokens), static_cast<unsigned>(tokens * kTokenLanes),
          static_cast<int>(stride), static_cast<std::size_t>(4 * tokens * stride)};
}

}  // namespace grist::cuda
