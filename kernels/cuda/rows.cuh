#pragma once
// y[r] = x[index[r]], converted: token embedding, and rows on their way between ranks.
//
// Shapes    y (R, D); x (N, D); index (R); f32 or bf16.
// Launch    a thread four vectors of y, of 16 bytes where D and the addresses allow it.
// Numerics  rounded to nearest even where y is narrower. A row that x does not have gives NaN.
// Traffic   a row read and a row written for each r.
// See       kernels/cuda/embedding.cu, kernels/cuda/gather.cu.
#include "elementwise.cuh"

namespace grist::cuda {

template <class To, class From> struct RowCopy {
  To* y;                      // (R, D)
  const From* x;              // (N, D)
  const std::int32_t* index;  // (R); a row that x does not have gives NaN
  std::int64_t R, N, D;
};

constexpr int kRowCopyItems = 4;

template <class To, class From, int W>
__global__ void __launch_bounds__(kBlockThreads)
    copy_rows_kernel(const RowCopy<To, From> a, unsigned items) {
  const auto vectors = static_cast<unsigned>(a.D / W);
  float x[kRowCopyItems][W];
#pragma unroll
  for (int j = 0; j < kRowCopyItems; ++j) {
    const auto item = static_cast<unsigned>(item_of_thread<kRowCopyItems>(j));
    if (item >= items) continue;
    const std::int64_t row = a.index[item / vectors];
    if (0 <= row && row < a.N) {
      load_floats(x[j], a.x + row * a.D + item % vectors * W);
    } else {
      for (int i = 0; i < W; ++i) x[j][i] = NAN;
    }
  }
#pragma unroll
  for (int j = 0; j < kRowCopyItems; ++j) {
    const auto item = static_cast<unsigned>(item_of_thread<kRowCopyItems>(j));
    if (item < items) store_floats(a.y + static_cast<std::int64_t>(item) * W, x[j]);
  }
}

// The vectors are as wide as To's.
template <class To, class From> void copy_rows(const Context& ctx, const RowCopy<To, From>& a) {
  for_width<To>(a.D, {a.y, a.x}, [&](auto width) {
    constexpr int W = decltype(width)::value;
    const unsigned items = count_items(a.R, a.D / W);
    launch(copy_rows_kernel<To, From, W>, blocks_for_items<kRowCopyItems>(items), kBlockThreads, 0,
           stream_of(ctx), a, items);
  });
}

}  // namespace grist::cuda
