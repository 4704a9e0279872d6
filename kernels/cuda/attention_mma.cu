// Attention forward in bf16 on tensor cores.
//
// Shapes    those of attention.cu; bf16, the heads that for_head() of attention_mma.cuh lists.
// Launch    a block of 4 warps owns 128 queries of one head, a warp 32 of them; it walks over the
//           keys 64 or 32 at a time. Values arrive while scores are computed, the next keys while
//           values are used.
// Numerics  fp32 sums. Scores are masked with -inf, which adds exact zeros; probabilities are
//           rounded to bf16 for the product with the values, and summed before that. Key blocks
//           count from the document's first key. Built with -ftz=true.
// Traffic   q and o once; k and v once a block of queries that sees them, mostly from L2.
// See       kernels/cuda/attention.cu, test tests/cuda/attention_test.cpp.
#include "attention_mma.cuh"
#include "grist/ops/attention.h"
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
  RunningRows<kTiles> state;
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
    const Corrections<kTiles> corrections = online_softmax(s, state, a.scale * kLog2e);
    follow(o, corrections);
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
