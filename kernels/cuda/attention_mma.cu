// Attention forward in bf16 on tensor cores.
//
// Launch    a block of 4 warps owns 128 queries of one head, a warp 32 of them; it walks over the
//           keys 64 or 32 at a time. Values arrive while scores are computed, the next keys while
//           values are used.
// Numerics  fp32 sums. Scores are masked with -inf, which adds exact zeros; probabilities are
//           rounded to bf16 for the product with the values, and summed before that. Key blocks
//           count from the document's first key.
#include "attention_mma.cuh"
#include "launch.h"

namespace grist::cuda::attention::mma {

namespace {

constexpr int kQueries = 128;
constexpr int kTiles = kQueries / kWarps / 16;  // of a warp
// Keys of a step: what registers leave room for.
template <int kHead> constexpr int kKeys = kHead <= 96 ? 64 : 32;

template <int kHead> struct ForwardShared {
  Tile<kQueries, kHead> q;
  Tile<kKeys<kHead>, kHead> k, v;
};

// The rows of one lane: tile m, row g + 8 half.
struct RunningRows {
  float max[kTiles][2];  // the same in the four lanes of a row
  float sum[kTiles][2];  // over the lane's own columns
};

// Over the four lanes of a row.
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Scores beyond the diagonal become -inf. `last`: the last column that the warp's first row sees,
// of the tile; each further row sees one more.
template <int kWidth> __device__ inline void mask(Sums<kTiles, kWidth>& s, int last) {
  const int own = last + lane_row() - lane_column();
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (n * 8 + i % 2 > own + m * 16 + i / 2 * 8) s.v[m][n][i] = -kInfinity;
    }
  }
}

// Scores become exp(scale (score - running maximum)); o and the sums follow the maximum.
// `exponent`: scale log2(e).
template <int kWidth, int kHead>
__device__ inline void online_softmax(Sums<kTiles, kWidth>& s, Sums<kTiles, kHead>& o,
                                      RunningRows& rows, float exponent) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = rows.max[m][half];
#pragma unroll
      for (auto& part : s.v[m]) largest = fmaxf(largest, fmaxf(part[half * 2], part[half * 2 + 1]));
      largest = row_max(largest);
      const float base = largest == -kInfinity ? 0.0F : largest;  // no key seen yet
      const float correction = exp2f((rows.max[m][half] - base) * exponent);
      rows.max[m][half] = largest;
      float sum = 0.0F;
#pragma unroll
      for (auto& part : s.v[m]) {
#pragma unroll
        for (int i = half * 2; i < half * 2 + 2; ++i) {
          part[i] = exp2f(fmaf(part[i], exponent, -base * exponent));
          sum += part[i];
        }
      }
      rows.sum[m][half] = fmaf(rows.sum[m][half], correction, sum);
#pragma unroll
      for (auto& part : o.v[m]) {
        part[half * 2] *= correction;
        part[half * 2 + 1] *= correction;
      }
    }
  }
}

// o / sum, and lse. A row that sees no key has sum 0.
template <int kHead>
__device__ inline void finish(Sums<kTiles, kHead>& o, const RunningRows& rows, float* lse,
                              int stride, int first, int end, float scale) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(rows.sum[m][half]);
      const float factor = sum == 0.0F ? 0.0F : 1.0F / sum;
#pragma unroll
      for (auto& part : o.v[m]) {
        part[half * 2] *= factor;
        part[half * 2 + 1] *= factor;
      }
      const int row = first + m * 16 + half * 8 + lane_row();
      if (row < end && lane_column() == 0)
        lse[static_cast<std::int64_t>(row) * stride] = fmaf(rows.max[m][half], scale, logf(sum));
    }
  }
}

template <int kHead>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(ForwardOperands<bf16> a, const RowBlock* blocks, const int* count) {
  GRIST_DYNAMIC_SHARED(ForwardShared<kHead>, shared);
  constexpr int kStep = kKeys<kHead>;
  const int item = static_cast<int>(blockIdx.x) / a.H, h = static_cast<int>(blockIdx.x) % a.H;
  if (item >= *count) return;
  const RowBlock block = blocks[item];
  const Document doc = a.document(block.document);
  const int rows = min(kQueries, doc.num_queries - block.begin);
  const int own = warp_index() * kTiles * 16;
  const int q_stride = a.query_stride(), kv_stride = a.key_stride();
  const std::int64_t q_at = a.query_at(doc.first_query + block.begin, h);
  std::int64_t kv_at = a.key_at(doc.first_key, h / (a.H / a.Hkv));
  const int seen = doc.visible(block.begin + rows - 1);
  const int last = block.begin + doc.num_keys - doc.num_queries;  // key that the first row sees

  start_copy(shared.q, a.q + q_at, q_stride, rows);
  start_copy(shared.k, a.k + kv_at, kv_stride, seen);
  ptx::cp_async_commit();
  Sums<kTiles, kHead> o;
  o.clear();
  RunningRows state;
  for (auto& tile : state.max) tile[0] = tile[1] = -kInfinity;
  for (auto& tile : state.sum) tile[0] = tile[1] = 0.0F;
  for (int key = 0; key < seen; key += kStep) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // the keys are there, the values before them used
    start_copy(shared.v, a.v + kv_at, kv_stride, seen - key);
    ptx::cp_async_commit();
    Sums<kTiles, kStep> s;
    dot_rows(s, shared.q, own, shared.k);
    ptx::cp_async_wait<0>();
    __syncthreads();  // the values are there, the keys used
    const int next = key + kStep;
    kv_at += static_cast<std::int64_t>(kStep) * kv_stride;
    if (next < seen) start_copy(shared.k, a.k + kv_at, kv_stride, seen - next);
    ptx::cp_async_commit();
    if (next - 1 > last) mask(s, last + own - key);
    online_softmax(s, o, state, a.scale * kLog2e);
    add_weighted(o, s, shared.v);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();  // q has arrived also where there are no keys
  finish(o, state, a.lse + q_at / kHead, a.H, own, rows, a.scale);
  store_sums(a.o + q_at, q_stride, rows, shared.q, own, o, 1.0F);
}

}  // namespace

bool forward(const Context& ctx, const ops::AttentionForward& a, const ForwardOperands<bf16>& f) {
  return for_head(f.Dh, [&](auto head) {
    constexpr int kHead = head();
    const RowBlocks queries =
        make_row_blocks(ctx, a.cu_seqlens_q, a.q.shape[0], kQueries, Order::last_first);
    launch(forward_kernel<kHead>, static_cast<unsigned>(queries.bound * f.H), kThreads,
           sizeof(ForwardShared<kHead>), stream_of(ctx), f, queries.blocks, queries.count);
  });
}

}  // namespace grist::cuda::attention::mma
