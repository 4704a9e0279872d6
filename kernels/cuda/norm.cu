// RMSNorm, forward, CUDA. Backward: norm_backward.cu.
//
//   h = x + residual,   y = h * rstd * w,   rstd = 1 / sqrt(mean(h^2) + eps)
//
// Shapes    x, residual, h, y (N, D) f32 or bf16; w (D) and rstd (N) f32.
// Launch    8 threads, a warp or a block of 256 a row, by its width (norm_rows.cuh).
// Numerics  fp32. rstd and y are of h as it is stored. Sums have a shape given by D alone.
// Traffic   x and residual read once, h and y written once; what of a row exceeds the registers
//           (over 4 vectors a thread of a block) is read again.
// See       kernels/cpu/norm.cpp, test tests/cuda/norm_test.cpp.
#include "grist/ops/norm.h"
#include "kernels/backends.h"
#include "norm_rows.cuh"

namespace grist::cuda {
namespace {

template <class T> struct Forward {
  T* y;
  T* h;  // may be x or residual; null: h is x
  float* rstd;
  const T* x;
  const T* residual;  // may be null
  const float* w;
  std::int64_t N;
  int D;
  float eps;
};

// h of one vector as it is stored; returns its sum of squares.
template <int W, class T>
__device__ inline float add_residual(const Forward<T>& a, std::int64_t at, Vec<T, W>& h,
                                     const Vec<T, W>& residual) {
  if (a.residual != nullptr) {
    float sum[W];
    for (int i = 0; i < W; ++i) sum[i] = h[i] + residual[i];
    h = Vec<T, W>::of(sum);
  }
  if (a.h != nullptr) store(a.h + at, h);
  float squares = 0.0F;
  for (int i = 0; i < W; ++i) squares += h[i] * h[i];
  return squares;
}

template <int W, class T>
__device__ inline void scale(T* y, const float* weights, const Vec<T, W>& h, float rstd) {
  float w[W], out[W];
  load_floats(w, weights);
  for (int i = 0; i < W; ++i) out[i] = h[i] * rstd * w[i];
  store_floats(y, out);
}

template <class T, int W, class Row>
__global__ void __launch_bounds__(kBlockThreads) forward_kernel(const Forward<T> a) {
  constexpr int kStride = Row::kLanes * W;
  __shared__ float shared[kBlockThreads / kWarp];
  const int first = static_cast<int>(threadIdx.x) % Row::kLanes * W;
  const std::int64_t n =
      static_cast<std::int64_t>(blockIdx.x) * Row::kGroups + threadIdx.x / Row::kLanes;
  const int D = n < a.N ? a.D : 0;
  const std::int64_t row = n * a.D;
  Vec<T, W> h[Row::kHeld], residual[Row::kHeld];
#pragma unroll
  for (int j = 0; j < Row::kHeld; ++j) {
    const int d = first + j * kStride;
    if (d < D) h[j] = load<W>(a.x + row + d);
    if (d < D && a.residual != nullptr) residual[j] = load<W>(a.residual + row + d);
  }
  float squares = 0.0F;
#pragma unroll
  for (int j = 0; j < Row::kHeld; ++j) {
    const int d = first + j * kStride;
    if (d < D) squares += add_residual(a, row + d, h[j], residual[j]);
  }
  for (int d = first + Row::kHeld * kStride; d < D; d += kStride) {
    Vec<T, W> more = load<W>(a.x + row + d), add = {};
    if (a.residual != nullptr) add = load<W>(a.residual + row + d);
    squares += add_residual(a, row + d, more, add);
  }
  const float mean = row_sum<Row::kLanes>(squares, shared) / static_cast<float>(a.D);
  const float rstd = 1.0F / sqrtf(mean + a.eps);
  if (D > 0 && first == 0) a.rstd[n] = rstd;
#pragma unroll
  for (int j = 0; j < Row::kHeld; ++j) {
    const int d = first + j * kStride;
    if (d < D) scale(a.y + row + d, a.w + d, h[j], rstd);
  }
  const T* source = a.h != nullptr ? a.h : a.x;
  for (int d = first + Row::kHeld * kStride; d < D; d += kStride)
    scale(a.y + row + d, a.w + d, load<W>(source + row + d), rstd);
}

}  // namespace

void rms_norm_forward(const Context& ctx, const ops::RmsNormForward& a) {
  const std::int64_t N = a.x.shape[0], D = a.x.shape[1];
  for_dtype(a.x.dtype, [&](auto type) {
    using T = decltype(type);
    const Forward<T> f{.y = elements<T>(a.y),
                       .h = elements<T>(a.h),
                       .rstd = a.rstd.as<float>(),
                       .x = elements<T>(a.x),
                       .residual = elements<T>(a.residual),
                       .w = a.w.as<float>(),
                       .N = N,
                       .D = static_cast<int>(D),
                       .eps = a.eps};
    for_width<T>(D, {f.y, f.h, f.x, f.residual, f.w}, [&](auto width) {
      constexpr int W = decltype(width)::value;
      for_row_shape(D / W, [&](auto shape) {
        using Row = decltype(shape);
        launch(forward_kernel<T, W, Row>, blocks_for(N, Row::kGroups), kBlockThreads, 0,
               stream_of(ctx), f);
      });
    });
  });
}

}  // namespace grist::cuda
