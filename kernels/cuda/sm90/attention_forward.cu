// Attention forward for Hopper: TMA, mbarriers and wgmma, bf16, heads of 64 and 128.
//
// Shapes    those of attention.cu with such heads.
// Launch    a block owns 128 queries of one head, a multiplying warpgroup 64 of them; it walks over
//           the keys 128 at a time. While the tensor cores multiply probabilities and values of one
//           step, the scores of the next become probabilities.
// Numerics  those of attention_mma.cu, 128 keys a step, built with -ftz=true too.
// Traffic   q and o once; k and v once a block of queries that sees them, mostly from L2.
// See       kernels/cuda/attention.cu, test tests/cuda/sm90_attention_test.cpp.
#include "attention.cuh"
#include "grist/core/error.h"
#include "grist/ops/attention.h"
#include "kernels/cuda/launch.h"

namespace grist::cuda::attention::hopper {

namespace {

constexpr int kKeys = 128;

struct Forward {
  ForwardOperands<bf16> a;
  CUtensorMap q, k, v;
  const RowBlock* blocks;
  const int* count;
};

template <int kHead> struct ForwardMemory {
  Tile<kWarpgroupRows, kHead> q[sm90::kMultipliers];
  Ring<Tile<kKeys, kHead>> k, v;
  ptx::Barrier q_full;
};

// What a block does.
struct Work {
  Document doc;
  int begin, rows;  // queries
  int head, kv_head;
  int steps;

  __device__ Work(const Forward& p, int item, int h)
      : doc(p.a.document(p.blocks[item].document)),
        begin(p.blocks[item].begin),
        rows(min(kBlockRows, doc.num_queries - begin)),
        head(h),
        kv_head(h / (p.a.H / p.a.Hkv)),
        steps((doc.visible(begin + rows - 1) + kKeys - 1) / kKeys) {}
};

template <int kHead>
__device__ inline void load(const Forward& p, ForwardMemory<kHead>& m, const Work& w) {
  if (w.steps > 0 && lane_index() == 0) {
    ptx::barrier_arrive_expect(&m.q_full, sizeof m.q);
    for (int i = 0; i < sm90::kMultipliers; ++i) {
      start_load(m.q[i], &p.q, &m.q_full, w.head, w.doc.first_query + w.begin + i * kWarpgroupRows);
    }
  }
  Position<kStages> at;
  for (int step = 0; step < w.steps; ++step) {
    const int key = step * kKeys;
    const std::int64_t row = w.doc.first_key + key;
    // Scores of keys that are not there are masked; values are multiplied by zeros.
    produce(m.k, at, {&p.k, p.a.k, p.a.Hkv}, w.kv_head, row, kKeys);
    produce(m.v, at, {&p.v, p.a.v, p.a.Hkv}, w.kv_head, row, w.doc.num_keys - key);
    at.advance();
  }
}

// The scores of a step become probabilities. `row`: the warp's first of the document.
__device__ inline Corrections<1> soften(Sums<1, kKeys>& s, RunningRows<1>& rows, const Forward& p,
                                        const Document& doc, int row, int key) {
  const int last = row + doc.num_keys - doc.num_queries - key;
  if (last < kKeys - 1) mask(s, last);
  return online_softmax(s, rows, p.a.scale * kLog2e);
}

// o and the rows' state, after at least one step. Scores are a step ahead of values.
template <int kHead>
__device__ inline void attend(const Forward& p, ForwardMemory<kHead>& m, const Work& w,
                              const Tile<kWarpgroupRows, kHead>& q, int row, Sums<1, kHead>& o,
                              RunningRows<1>& rows) {
  Position<kStages> k_at, v_at;
  Sums<1, kKeys> s;
  Left<kKeys> weights;
  ptx::barrier_wait(&m.q_full, 0);
  const auto& first = wait_for(m.k, k_at);
  ptx::wgmma_fence();
  start_dot_rows(s, q, first);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  keep(s);
  release(m.k, k_at);
  soften(s, rows, p, w.doc, row, 0);
  weights.round(s);
  for (int step = 1; step < w.steps; ++step) {
    const auto& k = wait_for(m.k, k_at);
    ptx::wgmma_fence();
    start_dot_rows(s, q, k);
    ptx::wgmma_commit();
    const auto& v = wait_for(m.v, v_at);
    keep(o);
    ptx::wgmma_fence();
    start_add_weighted(o, weights, v);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    keep(s);
    release(m.k, k_at);
    const Corrections<1> corrections = soften(s, rows, p, w.doc, row, step * kKeys);
    ptx::wgmma_wait<0>();
    keep(o);
    release(m.v, v_at);
    follow(o, corrections);
    weights.round(s);
  }
  const auto& v = wait_for(m.v, v_at);
  keep(o);
  ptx::wgmma_fence();
  start_add_weighted(o, weights, v);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  keep(o);
}

template <int kHead>
__global__ void __launch_bounds__(kBlockThreads, 1)
    forward_kernel(const __grid_constant__ Forward p) {
  GRIST_DYNAMIC_SHARED(ForwardMemory<kHead>, m);
  const int item = static_cast<int>(blockIdx.x) / p.a.H, h = static_cast<int>(blockIdx.x) % p.a.H;
  if (item >= *p.count) return;
  const Work work(p, item, h);
  if (threadIdx.x == 0) ptx::barrier_init(&m.q_full, 1);
  sm90::start_pipeline(m.k, 1);
  sm90::start_pipeline(m.v, 1);
  if (is_producer()) {
    ptx::registers_release<kProducerRegisters>();
    if (threadIdx.x < kWarp) load(p, m, work);
    return;
  }
  ptx::registers_take<kMultiplierRegisters>();
  auto& own = m.q[warpgroup()];
  const int first = warpgroup() * kWarpgroupRows, row = first + warp_row();
  Sums<1, kHead> o;
  o.clear();
  RunningRows<1> rows;
  if (work.steps > 0) attend(p, m, work, own, work.begin + row, o, rows);
  const std::int64_t query = work.doc.first_query + work.begin;
  finish(o, rows, p.a.lse + query * p.a.H + h, p.a.H, row, work.rows, p.a.scale);
  store_sums(p.a.o + p.a.query_at(query + first, h), p.a.query_stride(), work.rows - first, own,
             warpgroup(), o);
}

}  // namespace

bool forward(const Context& ctx, const ops::AttentionForward& a, const ForwardOperands<bf16>& f) {
  if (!takes(f.Dh, a.q, a.k, a.v, a.o)) return false;
  const RowBlocks queries =
      make_row_blocks(ctx, a.cu_seqlens_q, a.q.shape[0], kBlockRows, Order::last_first);
  const Forward p = {f, map_of(a.q), map_of(a.k), map_of(a.v), queries.blocks, queries.count};
  for_head(f.Dh, [&](auto head) {
    launch(forward_kernel<head()>, static_cast<unsigned>(queries.bound * f.H), kBlockThreads,
           sizeof(ForwardMemory<head()>), stream_of(ctx), p);
  });
  return true;
}

}  // namespace grist::cuda::attention::hopper
