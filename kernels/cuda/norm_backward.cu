// RMSNorm, backward, CUDA.
//
//   with g = w * dy and c = mean(g * h) * rstd^2:   dh = dresidual + rstd * (g - c * h)
//   dw += sum over rows of dy * h * rstd
//
// Shapes    dy, h, dresidual, dh (N, D) f32 or bf16; w, dw (D) and rstd (N) f32.
// Launch    a block a chunk of 256, 64 or 32 rows, by their width (norm_rows.cuh). It keeps the
//           chunk's sum of dw in registers, adds its groups in order and writes it; a second kernel
//           adds the chunks.
// Numerics  fp32. Sums have a shape given by D and N alone.
// Traffic   dy, h and dresidual read once, dh written once; a chunk's part of dw written and read
//           once.
// Scratch   4 bytes a column and chunk.
// See       kernels/cpu/norm.cpp, test tests/cuda/norm_test.cpp.
#include "grist/core/memory.h"
#include "grist/ops/norm.h"
#include "kernels/backends.h"
#include "norm_rows.cuh"

namespace grist::cuda {
namespace {

template <class T> struct Backward {
  T* dh;            // may be dresidual or dy
  float* partials;  // (chunks, D)
  const T* dy;
  const T* dresidual;  // may be null
  const T* h;
  const float* rstd;
  const float* w;
  std::int64_t N;
  int D;
};

// <dy * w, h> of one vector, and its part of dw.
template <int W, class T>
__device__ inline float products(const float* weights, const Vec<T, W>& dy, const Vec<T, W>& h,
                                 float rstd, float (&dw)[W]) {
  float w[W], sum = 0.0F;
  load_floats(w, weights);
  for (int i = 0; i < W; ++i) {
    const float g = dy[i], x = h[i];
    sum += g * w[i] * x;
    dw[i] += g * (x * rstd);
  }
  return sum;
}

struct RowScales {
  float rstd, c;
};
template <int W, class T>
__device__ inline void write_dh(T* dh, const float* weights, const Vec<T, W>& dy,
                                const Vec<T, W>& h, const Vec<T, W>& dresidual, RowScales s) {
  float w[W], out[W];
  load_floats(w, weights);
  for (int i = 0; i < W; ++i) out[i] = dresidual[i] + (dy[i] * w[i] - h[i] * s.c) * s.rstd;
  store_floats(dh, out);
}

template <int W, class T> __device__ inline Vec<T, W> load_or_zeros(const T* p, std::int64_t at) {
  const float zeros[W] = {};
  return p != nullptr ? load<W>(p + at) : Vec<T, W>::of(zeros);
}

// The vectors of a row that are not held in registers: only rows of a whole block have any.
template <class T, int W, class Row>
__device__ inline float products_beyond(const Backward<T>& a, std::int64_t row, int first, int D,
                                        float rstd, float* partial) {
  constexpr int kStride = Row::kLanes * W;
  float sum = 0.0F;
  for (int d = first + Row::kHeld * kStride; d < D; d += kStride) {
    float dw[W];
    load_floats(dw, partial + d);
    sum += products(a.w + d, load<W>(a.dy + row + d), load<W>(a.h + row + d), rstd, dw);
    store_floats(partial + d, dw);
  }
  return sum;
}

template <class T, int W, class Row>
__device__ inline void row_backward(const Backward<T>& a, std::int64_t n, int first,
                                    float (&dw)[Row::kHeld][W], float* partial, float* shared) {
  constexpr int kStride = Row::kLanes * W;
  const int D = n < a.N ? a.D : 0;
  const std::int64_t row = n * a.D;
  Vec<T, W> dy[Row::kHeld], h[Row::kHeld], dresidual[Row::kHeld];
#pragma unroll
  for (int j = 0; j < Row::kHeld; ++j) {
    const int d = first + j * kStride;
    if (d >= D) continue;
    dy[j] = load<W>(a.dy + row + d);
    h[j] = load<W>(a.h + row + d);
    dresidual[j] = load_or_zeros<W>(a.dresidual, row + d);
  }
  const float rstd = D > 0 ? a.rstd[n] : 0.0F;
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < Row::kHeld; ++j) {
    const int d = first + j * kStride;
    if (d < D) sum += products(a.w + d, dy[j], h[j], rstd, dw[j]);
  }
  if constexpr (Row::kGroups == 1)
    sum += products_beyond<T, W, Row>(a, row, first, D, rstd, partial);
  const float mean = row_sum<Row::kLanes>(sum, shared) / static_cast<float>(a.D);
  const RowScales scales{rstd, mean * (rstd * rstd)};
#pragma unroll
  for (int j = 0; j < Row::kHeld; ++j) {
    const int d = first + j * kStride;
    if (d < D) write_dh(a.dh + row + d, a.w + d, dy[j], h[j], dresidual[j], scales);
  }
  if constexpr (Row::kGroups == 1) {
    for (int d = first + Row::kHeld * kStride; d < D; d += kStride)
      write_dh(a.dh + row + d, a.w + d, load<W>(a.dy + row + d), load<W>(a.h + row + d),
               load_or_zeros<W>(a.dresidual, row + d), scales);
  }
}

// partial[d] = the groups' dw, added in the order of the groups.
template <int W, class Row>
__device__ inline void add_groups(const float (&dw)[Row::kHeld][W], int first, int D,
                                  float* partial) {
  constexpr int kStride = Row::kLanes * W;
  __shared__ float sums[Row::kGroups == 1 ? 1 : kStride * Row::kHeld];
  const int group = static_cast<int>(threadIdx.x) / Row::kLanes;
  for (int g = 0; g < Row::kGroups; ++g) {
    if (g == group) {
#pragma unroll
      for (int j = 0; j < Row::kHeld; ++j) {
        for (int i = 0; i < W; ++i) {
          const int d = first + j * kStride + i;
          if (d >= D) continue;
          if (Row::kGroups == 1)
            partial[d] = dw[j][i];
          else
            sums[d] = g == 0 ? dw[j][i] : sums[d] + dw[j][i];
        }
      }
    }
    if (Row::kGroups > 1) __syncthreads();
  }
  if (Row::kGroups > 1)
    for (int d = static_cast<int>(threadIdx.x); d < D; d += kBlockThreads) partial[d] = sums[d];
}

template <class T, int W, class Row>
__global__ void __launch_bounds__(kBlockThreads) backward_kernel(const Backward<T> a) {
  constexpr int kStride = Row::kLanes * W;
  __shared__ float shared[kBlockThreads / kWarp];
  const int first = static_cast<int>(threadIdx.x) % Row::kLanes * W;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * Row::kChunkRows;
  float* partial = a.partials + static_cast<std::int64_t>(blockIdx.x) * a.D;
  float dw[Row::kHeld][W] = {};
  for (int d = first + Row::kHeld * kStride; d < a.D; d += kStride)
    for (int i = 0; i < W; ++i) partial[d + i] = 0.0F;
  for (int r = 0; r < Row::kChunkRows && begin + r < a.N; r += Row::kGroups) {
    const std::int64_t n = begin + r + threadIdx.x / Row::kLanes;
    row_backward<T, W, Row>(a, n, first, dw, partial, shared);
  }
  add_groups<W, Row>(dw, first, a.D, partial);
}

// dw[d] += sum over chunks: kStrips threads take every kStrips-th chunk of a column, then they are
// added in order.
constexpr int kColumns = 32;
constexpr int kStrips = 32;

__global__ void __launch_bounds__(kColumns* kStrips)
    add_chunks_kernel(float* dw, const float* partials, int chunks, int D) {
  __shared__ float sums[kStrips][kColumns];
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const int strip = static_cast<int>(threadIdx.x) / kColumns;
  const int d = static_cast<int>(blockIdx.x) * kColumns + column;
  float sum = 0.0F;
  if (d < D) {
#pragma unroll 8
    for (int c = strip; c < chunks; c += kStrips)
      sum += partials[static_cast<std::int64_t>(c) * D + d];
  }
  sums[strip][column] = sum;
  __syncthreads();
  if (strip != 0 || d >= D) return;
  for (int s = 1; s < kStrips; ++s) sum += sums[s][column];
  dw[d] += sum;
}

}  // namespace

void rms_norm_backward(const Context& ctx, const ops::RmsNormBackward& a) {
  const std::int64_t N = a.h.shape[0], D = a.h.shape[1];
  const ScratchScope scope(ctx.scratch);
  for_dtype(a.h.dtype, [&](auto type) {
    using T = decltype(type);
    Backward<T> b{.dh = elements<T>(a.dh),
                  .partials = nullptr,
                  .dy = elements<T>(a.dy),
                  .dresidual = elements<T>(a.dresidual),
                  .h = elements<T>(a.h),
                  .rstd = a.rstd.as<float>(),
                  .w = a.w.as<float>(),
                  .N = N,
                  .D = static_cast<int>(D)};
    for_width<T>(D, {b.dh, b.dy, b.dresidual, b.h, b.w}, [&](auto width) {
      constexpr int W = decltype(width)::value;
      for_row_shape(D / W, [&](auto shape) {
        using Row = decltype(shape);
        const unsigned chunks = blocks_for(N, Row::kChunkRows);
        b.partials = ctx.scratch->allocate<float>(chunks * D);
        launch(backward_kernel<T, W, Row>, chunks, kBlockThreads, 0, stream_of(ctx), b);
        launch(add_chunks_kernel, blocks_for(D, kColumns), kColumns * kStrips, 0, stream_of(ctx),
               a.dw.as<float>(), b.partials, static_cast<int>(chunks), b.D);
      });
    });
  });
}

}  // namespace grist::cuda
