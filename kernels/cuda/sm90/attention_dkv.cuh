#pragma once
// dk and dv for Hopper.
//
// Shapes    k, v, dk, dv (Nk, Hkv, Dh), q, do (Nq, H, Dh), bf16; lse, delta (Nq, H) f32.
// Launch    a block owns 128 keys of one key/value head and walks over the group's query heads and,
//           in each, the queries that see them, 64 at a time.
// Numerics  fp32 sums, heads and queries ascending; probabilities and their gradients are rounded
//           to bf16 for the products.
// Traffic   k, v, dk, dv once; q, do, lse and delta once a block of keys that they see, mostly from
//           L2.
// See       kernels/cuda/sm90/attention_backward.cu, test tests/cuda/sm90_attention_test.cpp.
#include "attention_backward.cuh"

namespace grist::cuda::attention::hopper {

constexpr int kQueryStep = 64;

// Rows of q and do, with their lse (in powers of 2) and delta.
template <int kHead> struct Queries : Pair<kQueryStep, kHead> {
  float lse[kQueryStep], delta[kQueryStep];
};

// Two queries' lse and delta of a lane, on their way to a tile.
struct RowValues {
  float lse[2], delta[2];

  __device__ RowValues(const Backward& p, const Document& doc, int query, int h) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = query + lane_index() + i * kWarp;
      const std::int64_t at = (doc.first_query + row) * p.a.H + h;
      lse[i] = row < doc.num_queries ? p.a.lse[at] * kLog2e : 0.0F;
      delta[i] = row < doc.num_queries ? p.a.delta[at] : 0.0F;
    }
  }
  template <int kHead> __device__ void put(Queries<kHead>& to) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      to.lse[lane_index() + i * kWarp] = lse[i];
      to.delta[lane_index() + i * kWarp] = delta[i];
    }
    __syncwarp();
  }
};

template <int kHead> using DkvMemory = BackwardMemory<Queries<kHead>, kHead>;

// What a block does.
struct DkvWork {
  Document doc;
  int begin, rows;  // keys
  int kv_head;
  QuerySteps<kQueryStep> steps;

  __device__ DkvWork(const Backward& p, int item, int h)
      : doc(p.a.document(p.blocks[item].document)),
        begin(p.blocks[item].begin),
        rows(min(kBlockRows, doc.num_keys - begin)),
        kv_head(h),
        steps(doc, begin, h * (p.a.H / p.a.Hkv), p.a.H / p.a.Hkv) {}
};

template <int kHead>
__device__ inline void load(const Backward& p, DkvMemory<kHead>& m, const DkvWork& w) {
  const Source q = {&p.q, p.a.q, p.a.H}, do_ = {&p.do_, p.a.do_, p.a.H};
  if (lane_index() == 0 && w.steps.count > 0) {
    load_own(m, {&p.k, p.a.k, p.a.Hkv}, {&p.v, p.a.v, p.a.Hkv}, w.kv_head,
             w.doc.first_key + w.begin);
  }
  Position<kStages> at;
  for (int step = 0; step < w.steps.count; ++step) {
    const int query = w.steps.query(step), h = w.steps.head(step);
    const RowValues values(p, w.doc, query, h);  // while the tile is in use
    auto& to = wait_for_room(m.other, at);
    values.put(to);
    load_other(to, &m.other.full[at.stage], q, do_, h, w.doc.first_query + query,
               w.doc.num_queries - query);
    at.advance();
  }
}

// `own`: the warp's first row of the block.
template <int kHead>
__device__ inline void add_queries(const Backward& p, DkvMemory<kHead>& m, const DkvWork& w,
                                   const Pair<kWarpgroupRows, kHead>& keys, int own,
                                   Sums<1, kHead>& dk, Sums<1, kHead>& dv) {
  Position<kStages> at;
  ptx::barrier_wait(&m.own_full, 0);
  for (int step = 0; step < w.steps.count; ++step) {
    const int query = w.steps.query(step), key = w.begin + own;
    const auto seen = [&](int row, int column) {
      return query + column < w.doc.num_queries && key + row < w.doc.visible(query + column);
    };
    // The first query sees the fewest keys.
    const bool whole = query + kQueryStep <= w.doc.num_queries && key + 16 <= w.doc.visible(query);
    const auto& queries = wait_for(m.other, at);
    Sums<1, kQueryStep> s, dp;
    ptx::wgmma_fence();
    start_dot_rows(s, keys.x, queries.x);
    ptx::wgmma_commit();
    start_dot_rows(dp, keys.y, queries.y);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    keep(s);
    to_probabilities(s, p.a.scale * kLog2e,
                     [&](int n, int i) { return queries.lse[n * 8 + lane_column() + i % 2]; });
    if (!whole) clear_unseen(seen, s);
    Left<kQueryStep> weights, gradients;
    weights.round(s);
    keep(dv);
    ptx::wgmma_fence();
    start_add_weighted(dv, weights, queries.y);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    keep(dp);
    to_gradients(dp, s, [&](int n, int i) { return queries.delta[n * 8 + lane_column() + i % 2]; });
    if (!whole) clear_unseen(seen, dp);
    gradients.round(dp);
    keep(dk);
    ptx::wgmma_fence();
    start_add_weighted(dk, gradients, queries.x);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    keep(dv);
    keep(dk);
    release(m.other, at);
  }
}

template <int kHead>
__global__ void __launch_bounds__(kBlockThreads, 1) dkv_kernel(const __grid_constant__ Backward p) {
  GRIST_DYNAMIC_SHARED(DkvMemory<kHead>, m);
  constexpr bool kSpare = kHead < 128;  // dk and dv of larger heads need what there is
  const int item = static_cast<int>(blockIdx.x) / p.a.Hkv;
  if (item >= *p.count) return;
  const DkvWork work(p, item, static_cast<int>(blockIdx.x) % p.a.Hkv);
  if (threadIdx.x == 0) ptx::barrier_init(&m.own_full, 1);
  sm90::start_pipeline(m.other, 1);
  if (is_producer()) {
    ptx::registers_release<kSpare ? kProducerRegisters : 24>();
    if (threadIdx.x < kWarp) load(p, m, work);
    return;
  }
  ptx::registers_take<kSpare ? kMultiplierRegisters : 240>();
  auto& own = m.own[warpgroup()];
  const int first = warpgroup() * kWarpgroupRows;
  Sums<1, kHead> dk, dv;
  dk.clear();
  dv.clear();
  if (work.steps.count > 0) add_queries(p, m, work, own, first + warp_row(), dk, dv);
  dk.scale(p.a.scale);
  const std::int64_t at = p.a.key_at(work.doc.first_key + work.begin + first, work.kv_head);
  const int stride = p.a.key_stride(), rows = work.rows - first;
  store_sums(p.a.dk + at, stride, rows, own.x, warpgroup(), dk);
  store_sums(p.a.dv + at, stride, rows, own.y, warpgroup(), dv);
}

}  // namespace grist::cuda::attention::hopper
