#pragma once
// What the gradients of attention on tensor cores share: scores that become probabilities again and
// then their gradients, and the order in which a block of keys meets the queries that see it.
#include "attention_softmax.cuh"

namespace grist::cuda::attention {

// Eight columns of scores become p = exp(scale score - lse). lse(i), in powers of 2, belongs to
// value i; `exponent`: scale log2(e).
template <class Lse>
__device__ inline void to_probabilities(float (&s)[4], float exponent, Lse&& lse) {
#pragma unroll
  for (int i = 0; i < 4; ++i) s[i] = exp2f(fmaf(s[i], exponent, -lse(i)));
}
// dp becomes p (dp - delta), which is ds / scale.
template <class Delta>
__device__ inline void to_gradients(float (&dp)[4], const float (&p)[4], Delta&& delta) {
#pragma unroll
  for (int i = 0; i < 4; ++i) dp[i] = p[i] * (dp[i] - delta(i));
}

// Clears sums where !seen(row, column), counted from the warp's first row.
template <class Seen, int kWidth, class... More>
__device__ inline void clear_unseen(Seen&& seen, Sums<1, kWidth>& x, More&... more) {
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!seen(lane_row() + i / 2 * 8, n * 8 + lane_column() + i % 2)) {
        x.v[0][n][i] = 0.0F;
        ((more.v[0][n][i] = 0.0F), ...);
      }
    }
  }
}

// The steps of a block of keys: for every head of the group, the query blocks that see them.
template <int kStep> struct QuerySteps {
  int first_head, first_block, blocks, count;

  __device__ QuerySteps(const Document& doc, int key, int head, int group)
      : first_head(head),
        first_block(doc.first_seeing(key) / kStep),
        blocks(max(0, (doc.num_queries + kStep - 1) / kStep - first_block)),
        count(group * blocks) {}
  __device__ int head(int step) const { return first_head + step / blocks; }
  __device__ int query(int step) const { return (first_block + step % blocks) * kStep; }
};

}  // namespace grist::cuda::attention
