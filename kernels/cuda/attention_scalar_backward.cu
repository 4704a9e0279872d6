// Gradients of attention without tensor cores; tiles in attention_scalar.cuh.
//
// Shapes    those of attention.cu; f32 or bf16, Dh <= 256.
// Launch    a block of 256 threads owns 32 rows: dk and dv own keys and walk over the group's query
//           heads and their queries, dq owns queries and walks over keys, 32 rows at a time. Scores
//           are computed twice, so that each gradient has one writer.
// Numerics  fp32, sums in ascending order of heads and rows; exponentials by expf.
// Traffic   own rows and gradients once; the other side's two tensors once a block that meets them.
// See       kernels/cuda/attention.cu, test tests/cuda/attention_test.cpp.
#include <grist_ptx.cuh>

#include "attention_scalar.cuh"
#include "grist/ops/attention.h"
#include "launch.h"

namespace grist::cuda::attention::scalar {

namespace {

template <int kParts> struct BackwardShared {
  Tile<kParts> q, k, v, do_;
  ScoreTile p, ds;  // a row a query
  float lse[kTile], delta[kTile];
};

// q, do, lse and delta of `rows` queries from the document's query `begin` on.
template <class T, int kParts>
__device__ void load_queries(BackwardShared<kParts>& shared, const BackwardOperands<T>& a,
                             const Document& doc, int begin, int h) {
  const int rows = min(kTile, doc.num_queries - begin);
  const std::int64_t first = doc.first_query + begin, at = a.query_at(first, h);
  load_tile(shared.q, a.q + at, a.query_stride(), rows, a.Dh);
  load_tile(shared.do_, a.do_ + at, a.query_stride(), rows, a.Dh);
  for (int r = static_cast<int>(threadIdx.x); r < kTile; r += kThreads) {
    shared.lse[r] = r < rows ? a.lse[(first + r) * a.H + h] : 0.0F;
    shared.delta[r] = r < rows ? a.delta[(first + r) * a.H + h] : 0.0F;
  }
}
template <class T, int kParts>
__device__ void load_keys(BackwardShared<kParts>& shared, const BackwardOperands<T>& a,
                          const Document& doc, int begin, int kv_head) {
  const std::int64_t at = a.key_at(doc.first_key + begin, kv_head);
  load_tile(shared.k, a.k + at, a.key_stride(), doc.num_keys - begin, a.Dh);
  load_tile(shared.v, a.v + at, a.key_stride(), doc.num_keys - begin, a.Dh);
}

// p and ds of the tile of queries from `query` on and keys from `key` on.
template <int kParts>
__device__ void score_gradients(BackwardShared<kParts>& shared, const Document& doc, int query,
                                int key, float scale) {
  float score[kPerThread][kPerThread], dp[kPerThread][kPerThread];
  dot_rows(score, shared.q, shared.k);
  dot_rows(dp, shared.do_, shared.v);
  for (int r = 0; r < kPerThread; ++r) {
    const int row = thread_y() + r * kSide;
    const int visible = query + row < doc.num_queries ? doc.visible(query + row) : 0;
    for (int c = 0; c < kPerThread; ++c) {
      const int col = thread_x() + c * kSide;
      const bool masked = key + col >= visible;
      const float p = masked ? 0.0F : expf(fmaf(score[r][c], scale, -shared.lse[row]));
      shared.p.row[row][col] = p;
      shared.ds.row[row][col] = masked ? 0.0F : p * (dp[r][c] - shared.delta[row]) * scale;
    }
  }
}

template <class T, int kParts>
__global__ void __launch_bounds__(kThreads, 1)
    dq_kernel(BackwardOperands<T> a, const RowBlock* blocks, const int* count) {
  GRIST_DYNAMIC_SHARED(BackwardShared<kParts>, shared);
  const int item = static_cast<int>(blockIdx.x) / a.H, h = static_cast<int>(blockIdx.x) % a.H;
  if (item >= *count) return;
  const RowBlock block = blocks[item];
  const Document doc = a.document(block.document);
  const int rows = min(kTile, doc.num_queries - block.begin);
  load_queries(shared, a, doc, block.begin, h);

  Sums<kParts> dq{};
  const int seen = doc.visible(block.begin + rows - 1);
  for (int key = 0; key < seen; key += kTile) {
    __syncthreads();
    load_keys(shared, a, doc, key, h / (a.H / a.Hkv));
    __syncthreads();
    score_gradients(shared, doc, block.begin, key, a.scale);
    __syncwarp();  // a row is written and read by one warp
    add_products(dq, shared.k, [&](int row, int j) { return shared.ds.row[row][j]; });
  }
  store_sums(a.dq + a.query_at(doc.first_query + block.begin, h), a.query_stride(), rows, a.Dh, dq);
}

template <class T, int kParts>
__global__ void __launch_bounds__(kThreads, 1)
    dkv_kernel(BackwardOperands<T> a, const RowBlock* blocks, const int* count) {
  GRIST_DYNAMIC_SHARED(BackwardShared<kParts>, shared);
  const int item = static_cast<int>(blockIdx.x) / a.Hkv;
  const int kv_head = static_cast<int>(blockIdx.x) % a.Hkv;
  if (item >= *count) return;
  const RowBlock block = blocks[item];
  const Document doc = a.document(block.document);
  const int group = a.H / a.Hkv;
  load_keys(shared, a, doc, block.begin, kv_head);

  Sums<kParts> dk{}, dv{};
  const int first = doc.first_seeing(block.begin) / kTile * kTile;
  for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    for (int query = first; query < doc.num_queries; query += kTile) {
      __syncthreads();
      load_queries(shared, a, doc, query, h);
      __syncthreads();
      score_gradients(shared, doc, query, block.begin, a.scale);
      __syncthreads();
      add_products(dv, shared.do_, [&](int key, int i) { return shared.p.row[i][key]; });
      add_products(dk, shared.q, [&](int key, int i) { return shared.ds.row[i][key]; });
    }
  }
  const int rows = min(kTile, doc.num_keys - block.begin);
  const std::int64_t at = a.key_at(doc.first_key + block.begin, kv_head);
  store_sums(a.dk + at, a.key_stride(), rows, a.Dh, dk);
  store_sums(a.dv + at, a.key_stride(), rows, a.Dh, dv);
}

}  // namespace

template <class T>
void backward(const Context& ctx, const ops::AttentionBackward& a, const BackwardOperands<T>& b) {
  const RowBlocks queries =
      make_row_blocks(ctx, a.cu_seqlens_q, a.q.shape[0], kTile, Order::last_first);
  const RowBlocks keys =
      make_row_blocks(ctx, a.cu_seqlens_k, a.k.shape[0], kTile, Order::first_first);
  for_parts(b.Dh, [&](auto parts) {
    const std::size_t smem = sizeof(BackwardShared<parts()>);
    launch(dkv_kernel<T, parts()>, static_cast<unsigned>(keys.bound * b.Hkv), kThreads, smem,
           stream_of(ctx), b, keys.blocks, keys.count);
    launch(dq_kernel<T, parts()>, static_cast<unsigned>(queries.bound * b.H), kThreads, smem,
           stream_of(ctx), b, queries.blocks, queries.count);
  });
}

template void backward(const Context&, const ops::AttentionBackward&,
                       const BackwardOperands<float>&);
template void backward(const Context&, const ops::AttentionBackward&,
                       const BackwardOperands<bf16>&);

}  // namespace grist::cuda::attention::scalar
