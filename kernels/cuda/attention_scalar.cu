// Attention forward without tensor cores; tiles in attention_scalar.cuh.
//
// Shapes    those of attention.cu; f32 or bf16, Dh <= 256.
// Launch    a block of 256 threads owns 32 queries of one head and walks over their keys 32 at a
//           time; a row of a tile belongs to 16 threads of one warp.
// Numerics  fp32; exponentials by expf. o and the row sums are rescaled after each tile of keys,
//           which count from the document's first one.
// Traffic   q and o once; k and v once a block of queries that sees them.
// See       kernels/cuda/attention.cu, test tests/cuda/attention_test.cpp.
#include <grist_ptx.cuh>

#include "attention_scalar.cuh"
#include "grist/ops/attention.h"
#include "launch.h"

namespace grist::cuda::attention::scalar {

namespace {

template <int kParts> struct ForwardShared {
  Tile<kParts> q, k, v;
  ScoreTile p;
};

// One row's running maximum and sum of exponentials, the same in the row's 16 threads.
struct RunningRow {
  float max = -kInfinity;
  float sum = 0.0F;
};

// Turns a row's scores into exp(score - running maximum); returns what older sums are multiplied
// by. `any`: the row sees one of the tile's keys. A NaN score makes the sum NaN.
__device__ inline float online_softmax(RunningRow& state, float (&score)[kPerThread], bool any) {
  const float largest = row_max(fmaxf(score[0], score[1]));
  const float before = state.max;
  if (any) state.max = fmaxf(before, largest);
  for (float& value : score) value = any ? expf(value - state.max) : 0.0F;
  const float correction = any ? expf(before - state.max) : 1.0F;
  state.sum = fmaf(state.sum, correction, row_sum(score[0] + score[1]));
  return correction;
}

template <class T, int kParts>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(ForwardOperands<T> a, const RowBlock* blocks, const int* count) {
  GRIST_DYNAMIC_SHARED(ForwardShared<kParts>, shared);
  const int item = static_cast<int>(blockIdx.x) / a.H, h = static_cast<int>(blockIdx.x) % a.H;
  if (item >= *count) return;
  const RowBlock block = blocks[item];
  const Document doc = a.document(block.document);
  const int rows = min(kTile, doc.num_queries - block.begin);
  const int kv_head = h / (a.H / a.Hkv);
  const std::int64_t q_at = a.query_at(doc.first_query + block.begin, h);
  load_tile(shared.q, a.q + q_at, a.query_stride(), rows, a.Dh);

  Sums<kParts> o{};
  RunningRow state[kPerThread];
  const int seen = doc.visible(block.begin + rows - 1);
  for (int key = 0; key < seen; key += kTile) {
    const std::int64_t k_at = a.key_at(doc.first_key + key, kv_head);
    __syncthreads();
    load_tile(shared.k, a.k + k_at, a.key_stride(), doc.num_keys - key, a.Dh);
    load_tile(shared.v, a.v + k_at, a.key_stride(), doc.num_keys - key, a.Dh);
    __syncthreads();
    float score[kPerThread][kPerThread];
    dot_rows(score, shared.q, shared.k);
#pragma unroll
    for (int r = 0; r < kPerThread; ++r) {
      const int row = thread_y() + r * kSide;
      const int visible = doc.visible(block.begin + row);
      for (int c = 0; c < kPerThread; ++c) {
        const bool masked = key + thread_x() + c * kSide >= visible;
        score[r][c] = masked ? -kInfinity : score[r][c] * a.scale;
      }
      const float correction = online_softmax(state[r], score[r], key < visible);
      for (float& value : o.v[r]) value *= correction;
      for (int c = 0; c < kPerThread; ++c) shared.p.row[row][thread_x() + c * kSide] = score[r][c];
    }
    __syncwarp();  // a row is written and read by one warp
    add_products(o, shared.v, [&](int row, int j) { return shared.p.row[row][j]; });
  }

  for (int r = 0; r < kPerThread; ++r) {
    const int row = thread_y() + r * kSide;
    const float factor = doc.visible(block.begin + row) > 0 ? 1.0F / state[r].sum : 0.0F;
    for (float& value : o.v[r]) value *= factor;
    if (row < rows && thread_x() == 0)
      a.lse[(doc.first_query + block.begin + row) * a.H + h] = state[r].max + logf(state[r].sum);
  }
  store_sums(a.o + q_at, a.query_stride(), rows, a.Dh, o);
}

}  // namespace

template <class T>
void forward(const Context& ctx, const ops::AttentionForward& a, const ForwardOperands<T>& f) {
  const RowBlocks queries =
      make_row_blocks(ctx, a.cu_seqlens_q, a.q.shape[0], kTile, Order::last_first);
  for_parts(f.Dh, [&](auto parts) {
    launch(forward_kernel<T, parts()>, static_cast<unsigned>(queries.bound * f.H), kThreads,
           sizeof(ForwardShared<parts()>), stream_of(ctx), f, queries.blocks, queries.count);
  });
}

template void forward(const Context&, const ops::AttentionForward&, const ForwardOperands<float>&);
template void forward(const Context&, const ops::AttentionForward&, const ForwardOperands<bf16>&);

}  // namespace grist::cuda::attention::scalar
