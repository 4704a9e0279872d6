// Output layer and cross entropy in chunks of rows.
//
//   logits = x W^T;  lse = log(sum exp(logits - max)) + max;  loss = lse - logits[target];  z =
//   lse^2 dlogits = grad_scale * ((1 + 2 z_coeff lse) softmax(logits) - onehot(target)) dx =
//   dlogits W;  dw += dlogits^T x
//
// Shapes    x, dx (N, D); w, dw (V, D); losses, targets (N).  x f32 or bf16, dw and losses f32.
// Launch    a block of 512 threads a row of logits; 16-byte loads where rows are aligned.
// Numerics  fp32; the loss of a row in double. A row's sums have a fixed shape. grad_scale is
//           applied before dlogits is rounded.
// Traffic   logits are read twice and dlogits written once; the second read hits L2.
// Scratch   fp32 logits of one chunk; with fp32 activations dlogits overwrites them, with bf16 it
//           has a place of its own, half as large.
// See       kernels/cpu/cross_entropy.cpp, test tests/cuda/cross_entropy_test.cpp.
#include <algorithm>

#include "cublas.h"
#include "device.cuh"
#include "grist/core/memory.h"
#include "grist/ops/cross_entropy.h"
#include "grist/ops/linear.h"
#include "grist/ops/weight.h"
#include "grouped_matmul.cuh"
#include "kernels/backends.h"
#include "launch.h"

namespace grist::cuda {

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr float kInfinity = __builtin_huge_valf();

// Rows a chunk: enough for matmuls at full speed, but at most this many logits.
constexpr std::int64_t kMaxRows = 2048;
constexpr std::int64_t kMinRows = 128;
constexpr std::int64_t kMaxLogits = std::int64_t{1} << 28;

std::int64_t chunk_rows(std::int64_t N, std::int64_t V) {
  return std::min(N, std::clamp(kMaxLogits / V / kMinRows * kMinRows, kMinRows, kMaxRows));
}

// The largest of some values and the sum of exp(value - largest).
struct MaxSum {
  float max = -kInfinity;
  float sum = 0.0F;
};

// The sum relative to another maximum; exact where nothing was added yet.
__device__ inline float sum_under(const MaxSum& s, float max) {
  return s.max == max ? s.sum : s.sum * expf(s.max - max);
}

template <int kSize> __device__ inline void add_values(MaxSum& s, const float (&x)[kSize]) {
  float largest = s.max;
#pragma unroll
  for (const float value : x) largest = fmaxf(largest, value);
  s.sum = sum_under(s, largest);
  s.max = largest;
#pragma unroll
  for (const float value : x) s.sum += expf(value - largest);
}

// Of the whole block, the same in every thread.
__device__ MaxSum block_max_sum(MaxSum s) {
  __shared__ float maxima[kWarps];
  __shared__ float sums[kWarps];
  const float warp_largest = warp_max(s.max);
  if (threadIdx.x % kWarp == 0) maxima[threadIdx.x / kWarp] = warp_largest;
  __syncthreads();
  MaxSum total;
  for (const float value : maxima) total.max = fmaxf(total.max, value);
  total.sum = block_sum(sum_under(s, total.max), sums);
  return total;
}

// f(first column, values) for the row's packs of four that are this thread's, then the rest one by
// one; rows that are not aligned are all rest.
template <class F> __device__ void for_values(const float* row, int V, F&& f) {
  const int packed = V % 4 == 0 ? V : 0;
  for (int v = static_cast<int>(threadIdx.x) * 4; v < packed; v += kThreads * 4) {
    const Pack<float> pack = *reinterpret_cast<const Pack<float>*>(row + v);
    f(v, pack.v);
  }
  for (int v = packed + static_cast<int>(threadIdx.x); v < V; v += kThreads) {
    const float one[1] = {row[v]};
    f(v, one);
  }
}

template <class T> __device__ inline void store(T* out, const float (&x)[1]) {
  *out = from_float<T>(x[0]);
}
template <class T> struct alignas(4 * sizeof(T)) Four { T v[4]; };
template <class T> __device__ inline void store(T* out, const float (&x)[4]) {
  Four<T> four;
#pragma unroll
  for (int i = 0; i < 4; ++i) four.v[i] = from_float<T>(x[i]);
  *reinterpret_cast<Four<T>*>(out) = four;
}

// Where a row's losses go; z may be null.
struct LossRows {
  float* losses;
  float* z;
};

// dlogits may be logits; null: losses alone, and no grad_scale. A target that is no column makes
// the loss NaN: nobody waits for the device to say more.
template <class T>
__global__ void __launch_bounds__(kThreads)
    loss_kernel(LossRows out, T* dlogits, const float* logits, const std::int32_t* targets, int V,
                const float* grad_scale, float z_coeff) {
  const std::int64_t row_begin = static_cast<std::int64_t>(blockIdx.x) * V;
  const float* row = logits + row_begin;
  const int target = targets[blockIdx.x];
  T* drow = dlogits == nullptr ? nullptr : dlogits + row_begin;
  if (target < 0) {
    if (threadIdx.x == 0) out.losses[blockIdx.x] = 0.0F;
    if (threadIdx.x == 0 && out.z != nullptr) out.z[blockIdx.x] = 0.0F;
    for (int v = static_cast<int>(threadIdx.x); v < V && drow != nullptr; v += kThreads)
      drow[v] = from_float<T>(0.0F);
    return;
  }
  MaxSum own;
  for_values(row, V, [&](int, const auto& x) { add_values(own, x); });
  const float chosen = target < V ? row[target] : 0.0F;
  const MaxSum all = block_max_sum(own);  // and every thread has read `chosen`
  if (threadIdx.x == 0) {
    const double log_sum = log(static_cast<double>(all.sum));
    const double loss = log_sum + (static_cast<double>(all.max) - static_cast<double>(chosen));
    const double lse = log_sum + static_cast<double>(all.max);
    out.losses[blockIdx.x] = target < V ? static_cast<float>(loss) : __builtin_nanf("");
    if (out.z != nullptr) out.z[blockIdx.x] = static_cast<float>(lse * lse);
  }
  if (drow == nullptr) return;
  const float z_factor = 1.0F + 2.0F * z_coeff * (logf(all.sum) + all.max);
  const float scale = *grad_scale, factor = scale / all.sum * z_factor;
  for_values(row, V, [&](int first, const auto& x) {
    constexpr int kSize = sizeof(x) / sizeof(float);
    float d[kSize];
#pragma unroll
    for (int i = 0; i < kSize; ++i)
      d[i] = expf(x[i] - all.max) * factor - (first + i == target ? scale : 0.0F);
    store(drow + first, d);
  });
}

// logits = x W^T: fp32 also where x and W are bf16.
void multiply_logits(const Context& ctx, const TensorView& logits, const ConstTensorView& x,
                     const ops::WeightView& w) {
  const ops::LinearForward product{.y = logits, .x = x, .w = w};
  if (x.dtype == DType::f32) {
    cuda::linear_forward(ctx, product);
    return;
  }
  if (cublas::linear_forward(ctx, product)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t D = x.shape[1], V = w.shape[0];
  const Matmul<bf16, bf16> p{.a = {elements<bf16>(x), D},
                             .b = {reinterpret_cast<const bf16*>(w.data), D},
                             .rows = to_int(x.shape[0]),
                             .cols = to_int(V),
                             .depth = to_int(D)};
  multiply<Form::forward>(ctx, p, Store<float>{logits.as<float>(), V});
}

}  // namespace

void linear_cross_entropy(const Context& ctx, const ops::LinearCrossEntropy& a) {
  const std::int64_t N = a.x.shape[0], V = a.w.shape[0];
  const bool gradients = static_cast<bool>(a.dx);
  const float* grad_scale = gradients ? a.grad_scale.as<float>() : nullptr;
  if (N == 0) {
    if (a.dw && !a.accumulate)
      check(cudaMemsetAsync(a.dw.data, 0, a.dw.bytes(), stream_of(ctx)), "clearing dw");
    return;
  }
  const ScratchScope scope(ctx.scratch);
  const std::int64_t chunk = chunk_rows(N, V);
  const TensorView logit_space = ctx.scratch->tensor(DType::f32, {chunk, V});
  const TensorView dlogit_space = !gradients ? TensorView{}
                                  : a.x.dtype == DType::f32
                                      ? logit_space
                                      : ctx.scratch->tensor(a.x.dtype, {chunk, V});
  for (std::int64_t begin = 0; begin < N; begin += chunk) {
    const std::int64_t end = std::min(N, begin + chunk);
    const TensorView logits = rows(logit_space, 0, end - begin);
    const ConstTensorView x = rows(a.x, begin, end);
    multiply_logits(ctx, logits, x, a.w);
    for_dtype(a.x.dtype, [&](auto type) {
      using T = decltype(type);
      launch(loss_kernel<T>, blocks_for(end - begin, 1), kThreads, 0, stream_of(ctx),
             LossRows{a.losses.as<float>() + begin, a.z ? a.z.as<float>() + begin : nullptr},
             static_cast<T*>(dlogit_space.data), logits.as<float>(),
             a.targets.as<std::int32_t>() + begin, static_cast<int>(V), grad_scale, a.z_coeff);
    });
    if (!gradients) continue;
    const TensorView dlogits = rows(dlogit_space, 0, end - begin);
    cuda::linear_backward_input(
        ctx, {.dx = rows(a.dx, begin, end), .dy = dlogits, .w = a.w, .accumulate = false});
    cuda::linear_backward_weight(
        ctx, {.dw = a.dw, .dy = dlogits, .x = x, .accumulate = a.accumulate || begin > 0});
  }
}

}  // namespace grist::cuda
