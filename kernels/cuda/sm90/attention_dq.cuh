#pragma once
// dq for Hopper.
//
// Shapes    q, do, dq (Nq, H, Dh), k, v (Nk, Hkv, Dh), bf16; lse, delta (Nq, H) f32.
// Launch    a block owns 128 queries of one head and walks over the keys that they see, 128 at a
//           time.
// Numerics  fp32 sums, keys ascending; gradients of scores are rounded to bf16 for the last
//           product.
// Traffic   q, do, dq, lse and delta once; k and v once a block of queries that sees them, mostly
//           from L2.
// See       kernels/cuda/sm90/attention_backward.cu, test tests/cuda/sm90_attention_test.cpp.
#include "attention_backward.cuh"

namespace grist::cuda::attention::hopper {

constexpr int kKeyStep = 128;
template <int kHead> using Keys = Pair<kKeyStep, kHead>;
template <int kHead> using DqMemory = BackwardMemory<Keys<kHead>, kHead>;

// What a block does.
struct DqWork {
  Document doc;
  int begin, rows;  // queries
  int head, kv_head;
  int seen;  // keys

  __device__ DqWork(const Backward& p, int item, int h)
      : doc(p.a.document(p.blocks[item].document)),
        begin(p.blocks[item].begin),
        rows(min(kBlockRows, doc.num_queries - begin)),
        head(h),
        kv_head(h / (p.a.H / p.a.Hkv)),
        seen(doc.visible(begin + rows - 1)) {}
};

template <int kHead>
__device__ inline void load(const Backward& p, DqMemory<kHead>& m, const DqWork& w) {
  const Source k = {&p.k, p.a.k, p.a.Hkv}, v = {&p.v, p.a.v, p.a.Hkv};
  if (lane_index() == 0 && w.seen > 0) {
    load_own(m, {&p.q, p.a.q, p.a.H}, {&p.do_, p.a.do_, p.a.H}, w.head,
             w.doc.first_query + w.begin);
  }
  Position<kStages> at;
  for (int key = 0; key < w.seen; key += kKeyStep) {
    auto& to = wait_for_room(m.other, at);
    load_other(to, &m.other.full[at.stage], k, v, w.kv_head, w.doc.first_key + key,
               w.doc.num_keys - key);
    at.advance();
  }
}

// `own`: the warp's first row of the block.
template <int kHead>
__device__ inline void add_keys(const Backward& p, DqMemory<kHead>& m, const DqWork& w,
                                const Pair<kWarpgroupRows, kHead>& queries, int own,
                                Sums<1, kHead>& dq) {
  float lse[2], delta[2];  // of rows g and g+8
  for (int half = 0; half < 2; ++half) {
    const int row = own + half * 8 + lane_row();
    const std::int64_t at = (w.doc.first_query + w.begin + row) * p.a.H + w.head;
    lse[half] = row < w.rows ? p.a.lse[at] * kLog2e : 0.0F;
    delta[half] = row < w.rows ? p.a.delta[at] : 0.0F;
  }
  const int seen_by_all = own + 16 <= w.rows ? w.doc.visible(w.begin + own) : 0;
  Position<kStages> at;
  ptx::barrier_wait(&m.own_full, 0);
  for (int key = 0; key < w.seen; key += kKeyStep) {
    const auto& keys = wait_for(m.other, at);
    Sums<1, kKeyStep> s, dp;
    ptx::wgmma_fence();
    start_dot_rows(s, queries.x, keys.x);
    ptx::wgmma_commit();
    start_dot_rows(dp, queries.y, keys.y);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    keep(s);
    to_probabilities(s, p.a.scale * kLog2e, [&](int, int i) { return lse[i / 2]; });
    ptx::wgmma_wait<0>();
    keep(dp);
    to_gradients(dp, s, [&](int, int i) { return delta[i / 2]; });
    if (key + kKeyStep > seen_by_all) {
      clear_unseen(
          [&](int row, int column) {
            return own + row < w.rows && key + column < w.doc.visible(w.begin + own + row);
          },
          dp);
    }
    Left<kKeyStep> gradients;
    gradients.round(dp);
    keep(dq);
    ptx::wgmma_fence();
    start_add_weighted(dq, gradients, keys.x);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    keep(dq);
    release(m.other, at);
  }
}

template <int kHead>
__global__ void __launch_bounds__(kBlockThreads, 1) dq_kernel(const __grid_constant__ Backward p) {
  GRIST_DYNAMIC_SHARED(DqMemory<kHead>, m);
  const int item = static_cast<int>(blockIdx.x) / p.a.H, h = static_cast<int>(blockIdx.x) % p.a.H;
  if (item >= *p.count) return;
  const DqWork work(p, item, h);
  if (threadIdx.x == 0) ptx::barrier_init(&m.own_full, 1);
  sm90::start_pipeline(m.other, 1);
  if (is_producer()) {
    ptx::registers_release<kProducerRegisters>();
    if (threadIdx.x < kWarp) load(p, m, work);
    return;
  }
  ptx::registers_take<kMultiplierRegisters>();
  auto& own = m.own[warpgroup()];
  const int first = warpgroup() * kWarpgroupRows;
  Sums<1, kHead> dq;
  dq.clear();
  if (work.seen > 0) add_keys(p, m, work, own, first + warp_row(), dq);
  dq.scale(p.a.scale);
  store_sums(p.a.dq + p.a.query_at(work.doc.first_query + work.begin + first, h),
             p.a.query_stride(), work.rows - first, own.x, warpgroup(), dq);
}

}  // namespace grist::cuda::attention::hopper
