#pragma once
// What the two kernels of attention's gradients for Hopper share: a block owns 128 rows of two
// tensors and walks over rows of two others.
#include "attention.cuh"
#include "kernels/cuda/attention_gradients.cuh"

namespace grist::cuda::attention::hopper {

struct Backward {
  BackwardOperands<bf16> a;
  CUtensorMap q, do_, k, v;
  const RowBlock* blocks;  // of what a block owns
  const int* count;
};

// Rows of two tensors: (k, v) or (q, do).
template <int kRows_, int kHead> struct Pair {
  static constexpr int kRows = kRows_;
  Tile<kRows, kHead> x, y;
};
template <class Other, int kHead> struct BackwardMemory {
  Pair<kWarpgroupRows, kHead> own[sm90::kMultipliers];
  Ring<Other> other;
  ptx::Barrier own_full;
};

// ---- the producer -------------------------------------------------------------------------------

// By one thread: both warpgroups' rows. Those past the document's end are multiplied with no other
// row's and not stored.
template <class Memory>
__device__ inline void load_own(Memory& m, const Source& x, const Source& y, int head,
                                std::int64_t row) {
  ptx::barrier_arrive_expect(&m.own_full, sizeof m.own);
  for (auto& own : m.own) {
    start_load(own.x, x.map, &m.own_full, head, row);
    start_load(own.y, y.map, &m.own_full, head, row);
    row += kWarpgroupRows;
  }
}

// By a warp: `rows` rows of the document, and zeros, into a tile that is free.
template <class Other>
__device__ inline void load_other(Other& to, ptx::Barrier* full, const Source& x, const Source& y,
                                  int head, std::int64_t row, int rows) {
  if (rows < Other::kRows) {
    copy_last(to.x, x, head, row, rows);
    copy_last(to.y, y, head, row, rows);
    if (lane_index() == 0) ptx::barrier_arrive(full);
  } else if (lane_index() == 0) {
    ptx::barrier_arrive_expect(full, sizeof to.x + sizeof to.y);
    start_load(to.x, x.map, full, head, row);
    start_load(to.y, y.map, full, head, row);
  }
}

// ---- the warpgroups that multiply ---------------------------------------------------------------

// As in attention_gradients.cuh. lse(n, i) and delta(n, i) belong to value i of columns 8n..8n+7.
template <int kWidth, class Lse>
__device__ inline void to_probabilities(Sums<1, kWidth>& s, float exponent, Lse&& lse) {
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n)
    attention::to_probabilities(s.v[0][n], exponent, [&](int i) { return lse(n, i); });
}
template <int kWidth, class Delta>
__device__ inline void to_gradients(Sums<1, kWidth>& dp, const Sums<1, kWidth>& p, Delta&& delta) {
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n)
    attention::to_gradients(dp.v[0][n], p.v[0][n], [&](int i) { return delta(n, i); });
}

}  // namespace grist::cuda::attention::hopper
