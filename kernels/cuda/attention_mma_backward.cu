// Gradients of attention in bf16 on tensor cores.
//
// Shapes    those of attention.cu; bf16, the heads that for_head() of attention_mma.cuh lists.
// Launch    a block of 4 warps owns 64 rows, a warp 16 of them, and walks over the other side's
//           rows 64 or 32 at a time, the next of which arrive meanwhile: dk and dv own keys and
//           walk over the group's query heads and their queries, dq owns queries and walks over
//           keys. Scores are computed twice, so that each gradient has one writer.
// Numerics  fp32 sums in ascending order of heads and rows; probabilities and their gradients are
//           rounded to bf16 for the last products. Built with -ftz=true.
// Traffic   own rows and gradients once; the other side's two tensors once a block that meets them,
//           mostly from L2, in both kernels.
// See       kernels/cuda/attention.cu, test tests/cuda/attention_test.cpp.
#include "attention_gradients.cuh"
#include "attention_mma.cuh"
#include "grist/ops/attention.h"
#include "launch.h"

namespace grist::cuda::attention::mma {

namespace {

constexpr int kRows = 64;  // of a block
constexpr int kWarpRows = 16;

// Rows of each step on the other side: what registers and two blocks a multiprocessor leave room
// for.
template <int kHead> constexpr int kColumns = kHead <= 64 ? 64 : 32;
template <int kHead> using Scores = Sums<1, kColumns<kHead>>;

// Rows of two tensors: (k, v) or (q, do).
template <int kCount, int kHead> struct Pair { Tile<kCount, kHead> x, y; };

template <int kHead> struct BackwardShared {
  Pair<kRows, kHead> own;
  Pair<kColumns<kHead>, kHead> other[2];  // of this step and of the next
  // dk, dv only: lse (in powers of 2) and delta of the queries in `other`.
  float lse[2][kColumns<kHead>], delta[2][kColumns<kHead>];
};

template <int kCount, int kHead>
__device__ inline void copy_queries(Pair<kCount, kHead>& to, const BackwardOperands<bf16>& a,
                                    const Document& doc, int begin, int h) {
  const std::int64_t at = a.query_at(doc.first_query + begin, h);
  const int stride = a.query_stride();
  start_copy(to.x, a.q + at, stride, doc.num_queries - begin);
  start_copy(to.y, a.do_ + at, stride, doc.num_queries - begin);
}
template <int kCount, int kHead>
__device__ inline void copy_keys(Pair<kCount, kHead>& to, const BackwardOperands<bf16>& a,
                                 const Document& doc, int begin, int kv_head) {
  const std::int64_t at = a.key_at(doc.first_key + begin, kv_head);
  const int stride = a.key_stride();
  start_copy(to.x, a.k + at, stride, doc.num_keys - begin);
  start_copy(to.y, a.v + at, stride, doc.num_keys - begin);
}

// Scores and dp become probabilities and their gradients. lse(n, i) and delta(n, i) belong to value
// i of columns 8n..8n+7.
template <int kWidth, class Lse, class Delta>
__device__ inline void score_gradients(Sums<1, kWidth>& s, Sums<1, kWidth>& dp, float exponent,
                                       Lse&& lse, Delta&& delta) {
#pragma unroll
  for (int n = 0; n < kWidth / 8; ++n) {
    to_probabilities(s.v[0][n], exponent, [&](int i) { return lse(n, i); });
    to_gradients(dp.v[0][n], s.v[0][n], [&](int i) { return delta(n, i); });
  }
}

// ---- dq -----------------------------------------------------------------------------------------

template <int kHead>
__global__ void __launch_bounds__(kThreads)
    dq_kernel(BackwardOperands<bf16> a, const RowBlock* blocks, const int* count) {
  GRIST_DYNAMIC_SHARED(BackwardShared<kHead>, shared);
  constexpr int kStep = kColumns<kHead>;
  const int item = static_cast<int>(blockIdx.x) / a.H, h = static_cast<int>(blockIdx.x) % a.H;
  if (item >= *count) return;
  const RowBlock block = blocks[item];
  const Document doc = a.document(block.document);
  const int rows = min(kRows, doc.num_queries - block.begin);
  const int own = warp_index() * kWarpRows, kv_head = h / (a.H / a.Hkv);
  const std::int64_t first = doc.first_query + block.begin;
  const int seen = doc.visible(block.begin + rows - 1);
  const int seen_by_all = rows == kRows ? doc.visible(block.begin) : 0;

  copy_queries(shared.own, a, doc, block.begin, h);
  copy_keys(shared.other[0], a, doc, 0, kv_head);
  ptx::cp_async_commit();
  float lse[2], delta[2];  // of rows g and g+8
  for (int half = 0; half < 2; ++half) {
    const int row = own + half * 8 + lane_row();
    lse[half] = row < rows ? a.lse[(first + row) * a.H + h] * kLog2e : 0.0F;
    delta[half] = row < rows ? a.delta[(first + row) * a.H + h] : 0.0F;
  }
  Sums<1, kHead> dq;
  dq.clear();
  for (int key = 0; key < seen; key += kStep) {
    const auto& other = shared.other[key / kStep % 2];
    ptx::cp_async_wait<0>();
    __syncthreads();  // these keys are there, those before used
    const int next = key + kStep;
    if (next < seen) copy_keys(shared.other[next / kStep % 2], a, doc, next, kv_head);
    ptx::cp_async_commit();
    Scores<kHead> s, dp;
    dot_rows(s, shared.own.x, own, other.x);
    dot_rows(dp, shared.own.y, own, other.y);
    score_gradients(
        s, dp, a.scale * kLog2e, [&](int, int i) { return lse[i / 2]; },
        [&](int, int i) { return delta[i / 2]; });
    if (next > seen_by_all) {
      clear_unseen(
          [&](int row, int column) {
            return own + row < rows && key + column < doc.visible(block.begin + own + row);
          },
          dp);
    }
    add_weighted(dq, dp, other.x);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  store_sums(a.dq + a.query_at(first, h), a.query_stride(), rows, shared.own.x, own, dq, a.scale);
}

// ---- dk and dv ----------------------------------------------------------------------------------

// What a thread brings of a step's lse and delta; threads of a warp pair share the work.
template <int kStep> struct RowValues {
  float lse = 0.0F, delta = 0.0F;

  __device__ RowValues(const BackwardOperands<bf16>& a, const Document& doc, int begin, int h) {
    const int row = begin + static_cast<int>(threadIdx.x);
    if (threadIdx.x >= kStep || row >= doc.num_queries) return;
    const std::int64_t at = (doc.first_query + row) * a.H + h;
    lse = a.lse[at] * kLog2e;
    delta = a.delta[at];
  }
  template <int kHead> __device__ void put(BackwardShared<kHead>& shared, int stage) const {
    if (threadIdx.x >= kStep) return;
    shared.lse[stage][threadIdx.x] = lse;
    shared.delta[stage][threadIdx.x] = delta;
  }
};

template <int kHead>
__global__ void __launch_bounds__(kThreads)
    dkv_kernel(BackwardOperands<bf16> a, const RowBlock* blocks, const int* count) {
  GRIST_DYNAMIC_SHARED(BackwardShared<kHead>, shared);
  constexpr int kStep = kColumns<kHead>;
  const int item = static_cast<int>(blockIdx.x) / a.Hkv;
  const int kv_head = static_cast<int>(blockIdx.x) % a.Hkv, group = a.H / a.Hkv;
  if (item >= *count) return;
  const RowBlock block = blocks[item];
  const Document doc = a.document(block.document);
  const int own = warp_index() * kWarpRows;
  const QuerySteps<kStep> steps(doc, block.begin, kv_head * group, group);

  copy_keys(shared.own, a, doc, block.begin, kv_head);
  if (steps.count > 0) {
    copy_queries(shared.other[0], a, doc, steps.query(0), steps.head(0));
    RowValues<kStep>(a, doc, steps.query(0), steps.head(0)).put(shared, 0);
  }
  ptx::cp_async_commit();
  Sums<1, kHead> dk, dv;
  dk.clear();
  dv.clear();
  for (int step = 0; step < steps.count; ++step) {
    const int stage = step % 2, query = steps.query(step);
    const auto& other = shared.other[stage];
    ptx::cp_async_wait<0>();
    __syncthreads();  // these queries are there, those before used
    const int next = min(step + 1, steps.count - 1);
    if (next > step)
      copy_queries(shared.other[1 - stage], a, doc, steps.query(next), steps.head(next));
    ptx::cp_async_commit();
    const RowValues<kStep> values(a, doc, steps.query(next), steps.head(next));
    Scores<kHead> s, dp;
    dot_rows(s, shared.own.x, own, other.x);
    dot_rows(dp, shared.own.y, own, other.y);
    score_gradients(
        s, dp, a.scale * kLog2e,
        [&](int n, int i) { return shared.lse[stage][n * 8 + lane_column() + i % 2]; },
        [&](int n, int i) { return shared.delta[stage][n * 8 + lane_column() + i % 2]; });
    // The first query sees the fewest keys.
    if (query + kStep > doc.num_queries || block.begin + kRows > doc.visible(query)) {
      clear_unseen(
          [&](int row, int column) {
            return query + column < doc.num_queries &&
                   block.begin + own + row < doc.visible(query + column);
          },
          s, dp);
    }
    add_weighted(dv, s, other.y);
    add_weighted(dk, dp, other.x);
    values.put(shared, 1 - stage);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  const int rows = min(kRows, doc.num_keys - block.begin);
  const std::int64_t at = a.key_at(doc.first_key + block.begin, kv_head);
  store_sums(a.dk + at, a.key_stride(), rows, shared.own.x, own, dk, a.scale);
  store_sums(a.dv + at, a.key_stride(), rows, shared.own.y, own, dv, 1.0F);
}

}  // namespace

bool backward(const Context& ctx, const ops::AttentionBackward& a,
              const BackwardOperands<bf16>& b) {
  return for_head(b.Dh, [&](auto head) {
    constexpr int kHead = head();
    const RowBlocks keys =
        make_row_blocks(ctx, a.cu_seqlens_k, a.k.shape[0], kRows, Order::first_first);
    launch(dkv_kernel<kHead>, static_cast<unsigned>(keys.bound * b.Hkv), kThreads,
           sizeof(BackwardShared<kHead>), stream_of(ctx), b, keys.blocks, keys.count);
    const RowBlocks queries =
        make_row_blocks(ctx, a.cu_seqlens_q, a.q.shape[0], kRows, Order::last_first);
    launch(dq_kernel<kHead>, static_cast<unsigned>(queries.bound * b.H), kThreads,
           sizeof(BackwardShared<kHead>), stream_of(ctx), b, queries.blocks, queries.count);
  });
}

}  // namespace grist::cuda::attention::mma
