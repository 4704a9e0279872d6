// Rows brought back to tokens, and rows on their way between ranks, CUDA.
//
//   y[n] = sum_k w[n, k] * rows[slot_row[n, k]], or y[r] = x[index[r]]
//
// Shapes    y (N, D); rows (R, D); slot_row, w (N, K).  y[r] = x[index[r]]: y (R, D), x (N, D).
// Launch    a thread sums one vector of a token; the rows of eight choices are read side by side.
// Numerics  fp32, k ascending, from 0 (or from y), built with --fmad=false: the CPU's bits.
// Traffic   every kept row read once, y written once (and read where it is added to).
// See       kernels/cpu/dispatch.cpp, test tests/cuda/gather_test.cpp.
#include <cmath>

#include "elementwise.cuh"
#include "grist/ops/dispatch.h"
#include "kernels/backends.h"
#include "rows.cuh"

namespace grist::cuda {
namespace {

constexpr int kAhead = 8;  // choices whose rows are under way together

template <class T> struct TokenSums {
  T* y;                           // (N, D)
  const T* rows;                  // (R, D)
  const std::int32_t* slot_rows;  // (N, K)
  const float* weights;           // (N, K), or null
  unsigned items;                 // N * vectors
  int D, K;
  bool accumulate;
};

template <class T, int W>
__global__ void __launch_bounds__(kBlockThreads) gather_sum_kernel(const TokenSums<T> a) {
  const unsigned item = blockIdx.x * kBlockThreads + threadIdx.x;
  if (item >= a.items) return;
  const auto vectors = static_cast<unsigned>(a.D / W);
  const std::int64_t n = item / vectors;
  const std::int64_t d = static_cast<std::int64_t>(item % vectors) * W;
  const std::int32_t* slots = a.slot_rows + n * a.K;
  const float* weights = a.weights + n * a.K;
  float sum[W] = {};
  if (a.accumulate) load_floats(sum, a.y + n * a.D + d);
  for (int first = 0; first < a.K; first += kAhead) {
    std::int64_t row[kAhead];
    Vec<T, W> x[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) row[j] = first + j < a.K ? slots[first + j] : -1;
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      if (row[j] >= 0) x[j] = load<W>(a.rows + row[j] * a.D + d);
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      if (row[j] < 0) continue;
      const float w = a.weights != nullptr ? weights[first + j] : 1.0F;
      for (int i = 0; i < W; ++i) sum[i] += w * x[j][i];
    }
  }
  store_floats(a.y + n * a.D + d, sum);
}

}  // namespace

void gather_sum(const Context& ctx, const ops::GatherSum& a) {
  const std::int64_t N = a.y.shape[0], D = a.y.shape[1];
  for_dtype(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    for_width<T>(D, {a.y.data, a.rows.data}, [&](auto width) {
      constexpr int W = decltype(width)::value;
      const TokenSums<T> t{.y = elements<T>(a.y),
                           .rows = elements<T>(a.rows),
                           .slot_rows = a.slot_row.as<std::int32_t>(),
                           .weights = elements<float>(a.weights),
                           .items = count_items(N, D / W),
                           .D = static_cast<int>(D),
                           .K = static_cast<int>(a.slot_row.shape[1]),
                           .accumulate = a.accumulate};
      launch(gather_sum_kernel<T, W>, blocks_for(t.items, kBlockThreads), kBlockThreads, 0,
             stream_of(ctx), t);
    });
  });
}

void gather_rows(const Context& ctx, const ops::GatherRows& a) {
  for_dtype(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    copy_rows<T, T>(ctx, {.y = elements<T>(a.y),
                          .x = elements<T>(a.x),
                          .index = a.index.as<std::int32_t>(),
                          .R = a.y.shape[0],
                          .N = a.x.shape[0],
                          .D = a.y.shape[1]});
  });
}

}  // namespace grist::cuda
