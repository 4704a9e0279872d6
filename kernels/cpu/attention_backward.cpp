// Gradients of attention, CPU; formulas in attention.cpp.
//
// Shapes    q, o, do, dq (Nq, H, Dh); k, v, dk, dv (Nk, Hkv, Dh); lse (Nq, H); f32.
// Launch    a task has one document and key/value head and makes all three gradients, or, where
//           that would leave workers idle, dq of some queries or dk and dv of some keys
//           (attention_plan.cpp).
// Numerics  those of attention.cpp; dk and dv add up heads, then queries, in ascending order.
// Traffic   k and v once a task; q, o, do and the gradients once a task and kKeySpan keys.
// See       kernels/cpu/attention.h, test tests/ops/attention_test.cpp.
#include "grist/core/memory.h"
#include "grist/ops/attention.h"
#include "kernels/backends.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/lanes.h"

namespace grist::cpu {
namespace {

// ds = scale p (dp - delta) over dp, for whole groups of sixteen columns.
GRIST_CLONES void score_gradient(float* dp, const float* p, const float* delta, std::int64_t rows,
                                 std::int64_t cols, float scale) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = r * kRowStride; c < r * kRowStride + cols; c += kLanes) {
      Lanes x, y;
      load(x, dp + c);
      load(y, p + c);
      store(dp + c, (x - delta[r]) * y * scale);
    }
  }
}

struct BackwardSpace {           // of one worker
  float *k_columns, *v_columns;  // panels, depth Dh, a column a key
  float* k_rows;                 // panels, depth keys
  float *q_rows, *do_rows;       // panels, depth queries
  float *q, *do_;                // copies of the query block, q scaled
  float *p, *ds;                 // tiles
  float* delta;                  // a row: <dO, O>
};

class BackwardTask {
 public:
  BackwardTask(const ops::AttentionBackward& a, const AttentionTask& t, const BackwardSpace& w)
      : a_(a),
        t_(t),
        w_(w),
        isa_(native_kernels()),
        Dh_(a.q.shape[2]),
        k_(head_of(a.k.as<float>(), a.k.shape, t.kv_head).from(t.first_key)),
        v_(head_of(a.v.as<float>(), a.v.shape, t.kv_head).from(t.first_key)),
        dk_(head_of(a.dk.as<float>(), a.k.shape, t.kv_head).from(t.first_key)),
        dv_(head_of(a.dv.as<float>(), a.k.shape, t.kv_head).from(t.first_key)) {}

  void run() {
    const std::int64_t group = a_.q.shape[1] / a_.k.shape[1];
    const std::int64_t heads[2] = {t_.kv_head * group, (t_.kv_head + 1) * group};
    if (t_.dkv) clear();
    const std::int64_t seen = t_.query_end > 0 ? t_.visible(t_.query_end - 1) : 0;
    const std::int64_t end = std::min(t_.key_end, seen);
    for (std::int64_t key = t_.key_begin; key == t_.key_begin || key < end; key += kKeySpan) {
      const std::int64_t span[2] = {key, std::max(key, std::min(end, key + kKeySpan))};
      pack_key_columns(w_.k_columns, k_, span, Dh_);
      pack_key_columns(w_.v_columns, v_, span, Dh_);
      if (t_.dq) pack_key_blocks(w_.k_rows, k_, span, Dh_);
      for (std::int64_t h = heads[0]; h < heads[1]; ++h) {
        for (std::int64_t i = t_.query_begin; i < t_.query_end; i += kQueryBlock)
          query_block(h, i, span);
      }
    }
  }

 private:
  void clear() {
    for (std::int64_t j = t_.key_begin; j < t_.key_end; ++j) {
      std::fill_n(dk_[j], Dh_, 0.0F);
      std::fill_n(dv_[j], Dh_, 0.0F);
    }
  }

  void query_block(std::int64_t h, std::int64_t i, const std::int64_t (&span)[2]) {
    const std::int64_t rows = std::min(kQueryBlock, t_.query_end - i);
    const std::int64_t first = t_.first_query + i;
    const std::int64_t seen = t_.visible(i + rows - 1);
    const auto q = head_of(a_.q.as<float>(), a_.q.shape, h).from(first);
    const auto o = head_of(a_.o.as<float>(), a_.q.shape, h).from(first);
    const auto do_ = head_of(a_.do_.as<float>(), a_.q.shape, h).from(first);
    const auto dq = head_of(a_.dq.as<float>(), a_.q.shape, h).from(first);
    for (std::int64_t r = 0; r < rows && t_.dq && seen == 0; ++r) std::fill_n(dq[r], Dh_, 0.0F);
    if (seen <= span[0]) return;
    copy_rows(w_.q, q, rows, Dh_, a_.scale);
    copy_rows(w_.do_, do_, rows, Dh_, 1.0F);
    if (t_.dkv) {
      pack_panels(w_.q_rows, {q.data, q.stride}, rows, Dh_);
      pack_panels(w_.do_rows, {do_.data, do_.stride}, rows, Dh_);
    }
    for (std::int64_t r = 0; r < rows; ++r) w_.delta[r] = isa_.dot(do_[r], o[r], Dh_);
    for_key_blocks(t_, i, rows, span, [&](const ScoreTile& tile) {
      probabilities(h, tile, span[0]);
      if (t_.dkv) add_transposed(dv_, w_.p, w_.do_rows, tile);
      multiply_scores({w_.ds, w_.do_, w_.v_columns, span[0], Dh_}, tile);
      score_gradient(w_.ds, w_.p, w_.delta, rows, tile.width(), a_.scale);
      if (t_.dkv) add_transposed(dk_, w_.ds, w_.q_rows, tile);
      if (t_.dq) {
        isa_.multiply_rows({.c = dq.data,
                            .c_stride = dq.stride,
                            .a = w_.ds,
                            .a_stride = kRowStride,
                            .b = w_.k_rows + block_offset(tile.key - span[0], Dh_),
                            .b_stride = tile.packed * kPanelColumns,
                            .rows = rows,
                            .cols = Dh_,
                            .depth = tile.cols,
                            .accumulate = tile.key > 0});
      }
    });
  }

  void probabilities(std::int64_t h, const ScoreTile& tile, std::int64_t span_begin) {
    multiply_scores({w_.p, w_.q, w_.k_columns, span_begin, Dh_}, tile);
    const auto* lse = a_.lse.as<float>();
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      float* p = w_.p + r * kRowStride;
      const std::int64_t seen = tile.seen(t_, r);
      std::fill(p + seen, p + tile.width(), 0.0F);
      if (seen == 0) continue;
      const std::int64_t row = (t_.first_query + tile.query + r) * a_.q.shape[1] + h;
      isa_.exp_minus(p, p, lse[row], seen);
    }
  }

  // out[key] += sum over the tile's queries of tile[query, key] rows[query].
  void add_transposed(const Head<float>& out, const float* of, const float* rows,
                      const ScoreTile& tile) {
    isa_.multiply_columns({.c = out[tile.key],
                           .c_stride = out.stride,
                           .a = of,
                           .a_stride = kRowStride,
                           .b = rows,
                           .b_stride = tile.rows * kPanelColumns,
                           .rows = tile.cols,
                           .cols = Dh_,
                           .depth = tile.rows,
                           .accumulate = true});
  }

  const ops::AttentionBackward& a_;
  const AttentionTask& t_;
  const BackwardSpace& w_;
  const IsaKernels& isa_;
  std::int64_t Dh_;
  Head<const float> k_, v_;
  Head<float> dk_, dv_;
};

}  // namespace

void attention_backward(const Context& ctx, const ops::AttentionBackward& a) {
  const ScratchScope scope(ctx.scratch);
  const std::int64_t Dh = a.q.shape[2];
  const auto floats = [&](std::int64_t n) { return ctx.scratch->allocate<float>(n); };
  const auto tasks = plan_attention_backward(
      ctx, {a.cu_seqlens_q, a.cu_seqlens_k, a.q.shape[0], a.k.shape[0], a.k.shape[1]});
  auto* spaces = ctx.scratch->allocate<BackwardSpace>(ctx.num_workers());
  for (int w = 0; w < ctx.num_workers(); ++w) {
    spaces[w] = {.k_columns = floats(panel_floats(Dh, kKeySpan)),
                 .v_columns = floats(panel_floats(Dh, kKeySpan)),
                 .k_rows = floats(block_offset(kKeySpan, Dh)),
                 .q_rows = floats(panel_floats(kQueryBlock, Dh)),
                 .do_rows = floats(panel_floats(kQueryBlock, Dh)),
                 .q = floats(copied_floats(Dh)),
                 .do_ = floats(copied_floats(Dh)),
                 .p = floats(kScoreFloats),
                 .ds = floats(kScoreFloats),
                 .delta = floats(kQueryBlock)};
  }
  parallel_for(ctx, static_cast<std::int64_t>(tasks.size()), [&](std::int64_t i, int worker) {
    BackwardTask(a, tasks[static_cast<std::size_t>(i)], spaces[worker]).run();
  });
}

}  // namespace grist::cpu
