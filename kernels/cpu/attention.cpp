// Causal attention over packed documents, CPU.
//
//   S = scale Q K^T, masked;  P = softmax(S);  O = P V;  lse = log sum exp S
//   delta = rowsum(dO * O);  dP = dO V^T;  dS = scale P (dP - delta)
//   dV = P^T dO;  dK = dS^T Q;  dQ = dS K
//
// Shapes    q, o (Nq, H, Dh); k, v (Nk, Hkv, Dh); lse (Nq, H); f32, any Dh >= 1.
// Launch    a task has queries of one document and one key/value head's group (attention_plan.cpp).
//           It packs up to kKeySpan keys and values at a time, so that they stay in the
//           second-level cache while every query block passes by.
// Numerics  fp32. Scores and the three gradients are single fused multiply-add chains in ascending
//           index. Forward: O and the row sums are rescaled after each block of kKeyBlock keys;
//           blocks count from the document's first key, so a row's bits do not depend on the other
//           rows, and a decoded query equals the same query of a longer pass. Masked scores are
//           -inf and add exact zeros.
// Traffic   k and v once a task; q and o once a task and kKeySpan keys.
// See       kernels/cpu/attention.h, test tests/ops/attention_test.cpp.
#include <cmath>
#include <limits>

#include "grist/core/memory.h"
#include "grist/ops/attention.h"
#include "kernels/backends.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/lanes.h"

namespace grist::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct ForwardSpace {  // of one worker
  float* k_columns;    // panels, depth Dh, a column a key
  float* v_rows;       // panels, depth keys
  float* q;            // scaled copy of the query block
  float* p;            // tile: scores, then exp(scores - running max)
  float* correction;   // a row: exp(old max - new max)
  float* rows;         // a row: the tile's maximum, then its sum
};

class ForwardTask {
 public:
  ForwardTask(const ops::AttentionForward& a, float* totals, const AttentionTask& t,
              const ForwardSpace& w)
      : a_(a), t_(t), w_(w), isa_(native_kernels()), totals_(totals), Dh_(a.q.shape[2]) {}

  void run() {
    const std::int64_t H = a_.q.shape[1];
    const std::int64_t group = H / a_.k.shape[1];
    const std::int64_t keys = t_.query_end > 0 ? t_.visible(t_.query_end - 1) : 0;
    for (std::int64_t key = 0; key == 0 || key < keys; key += kKeySpan) {
      const std::int64_t span[2] = {key, std::min(keys, key + kKeySpan)};
      pack(span);
      for (std::int64_t h = t_.kv_head * group; h < (t_.kv_head + 1) * group; ++h) {
        for (std::int64_t i = t_.query_begin; i < t_.query_end; i += kQueryBlock)
          query_block(h, i, span);
      }
    }
  }

 private:
  // The running max lives in lse until a row is finished, the running sum in totals.
  std::int64_t row_of(std::int64_t i, std::int64_t h) const {
    return (t_.first_query + i) * a_.q.shape[1] + h;
  }

  // No key seen yet. O is written whole by the first key block; a query block that sees no key is
  // cleared here.
  void start(std::int64_t h, std::int64_t i, std::int64_t rows) {
    for (std::int64_t r = i; r < i + rows; ++r) {
      a_.lse.as<float>()[row_of(r, h)] = -kInfinity;
      totals_[row_of(r, h)] = 0.0F;
      if (t_.visible(i + rows - 1) == 0)
        std::fill_n(a_.o.as<float>() + row_of(r, h) * Dh_, Dh_, 0.0F);
    }
  }

  void pack(const std::int64_t (&span)[2]) {
    const auto k = head_of(a_.k.as<float>(), a_.k.shape, t_.kv_head).from(t_.first_key);
    const auto v = head_of(a_.v.as<float>(), a_.v.shape, t_.kv_head).from(t_.first_key);
    pack_key_columns(w_.k_columns, k, span, Dh_);
    pack_key_blocks(w_.v_rows, v, span, Dh_);
  }

  void query_block(std::int64_t h, std::int64_t i, const std::int64_t (&span)[2]) {
    const std::int64_t rows = std::min(kQueryBlock, t_.query_end - i);
    const std::int64_t seen = t_.visible(i + rows - 1);
    if (span[0] == 0) start(h, i, rows);
    if (seen <= span[0]) return;
    const auto q = head_of(a_.q.as<float>(), a_.q.shape, h).from(t_.first_query);
    const auto o = head_of(a_.o.as<float>(), a_.o.shape, h).from(t_.first_query);
    copy_rows(w_.q, q.from(i), rows, Dh_, a_.scale);
    for_key_blocks(t_, i, rows, span, [&](const ScoreTile& tile) {
      multiply_scores({w_.p, w_.q, w_.k_columns, span[0], Dh_}, tile);
      softmax(h, tile);
      for (std::int64_t r = 0; r < rows && tile.key > 0; ++r)
        if (w_.correction[r] != 1.0F) scale_row(o[i + r], w_.correction[r], Dh_);
      isa_.multiply_rows({.c = o[i],
                          .c_stride = o.stride,
                          .a = w_.p,
                          .a_stride = kRowStride,
                          .b = w_.v_rows + block_offset(tile.key - span[0], Dh_),
                          .b_stride = tile.packed * kPanelColumns,
                          .rows = rows,
                          .cols = Dh_,
                          .depth = tile.cols,
                          .accumulate = tile.key > 0});
    });
    if (seen <= span[1]) finish(h, i, rows);
  }

  // One block's step of the online softmax, for every row of the tile.
  void softmax(std::int64_t h, const ScoreTile& tile) {
    const std::int64_t width = tile.width();
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      float* p = w_.p + r * kRowStride;
      std::fill(p + tile.seen(t_, r), p + width, -kInfinity);
    }
    row_maxima(w_.rows, w_.p, tile.rows, width);
    const std::int64_t H = a_.q.shape[1];
    auto* maxima = a_.lse.as<float>() + row_of(tile.query, h);
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      float* p = w_.p + r * kRowStride;
      w_.correction[r] = 0.0F;  // exponent: no change
      if (tile.seen(t_, r) == 0) {
        std::fill_n(p, width, 0.0F);
        continue;
      }
      const float before = maxima[r * H];
      const float now = w_.rows[r] > before ? w_.rows[r] : before;
      isa_.exp_minus(p, p, now, width);
      if (now != before) w_.correction[r] = before - now;
      maxima[r * H] = now;
    }
    isa_.exp_minus(w_.correction, w_.correction, 0.0F, tile.rows);
    row_sums(w_.rows, w_.p, tile.rows, width);
    float* sums = totals_ + row_of(tile.query, h);
    for (std::int64_t r = 0; r < tile.rows; ++r)
      sums[r * H] = sums[r * H] * w_.correction[r] + w_.rows[r];
  }

  void finish(std::int64_t h, std::int64_t i, std::int64_t rows) {
    for (std::int64_t r = std::max<std::int64_t>(0, first_seeing(i)); r < rows; ++r) {
      const std::int64_t row = row_of(i + r, h);
      scale_row(a_.o.as<float>() + row * Dh_, 1.0F / totals_[row], Dh_);
      a_.lse.as<float>()[row] += std::log(totals_[row]);
    }
  }

  // The first row of a query block at i that sees any key.
  std::int64_t first_seeing(std::int64_t i) const { return t_.num_queries - t_.num_keys - i; }

  const ops::AttentionForward& a_;
  const AttentionTask& t_;
  const ForwardSpace& w_;
  const IsaKernels& isa_;
  float* totals_;
  std::int64_t Dh_;
};

}  // namespace

void attention_forward(const Context& ctx, const ops::AttentionForward& a) {
  const ScratchScope scope(ctx.scratch);
  const std::int64_t Dh = a.q.shape[2];
  const auto floats = [&](std::int64_t n) { return ctx.scratch->allocate<float>(n); };
  const auto tasks = plan_attention_forward(
      ctx, {a.cu_seqlens_q, a.cu_seqlens_k, a.q.shape[0], a.k.shape[0], a.k.shape[1]});
  auto* totals = floats(a.lse.numel());
  auto* spaces = ctx.scratch->allocate<ForwardSpace>(ctx.num_workers());
  for (int w = 0; w < ctx.num_workers(); ++w) {
    spaces[w] = {.k_columns = floats(panel_floats(Dh, kKeySpan)),
                 .v_rows = floats(block_offset(kKeySpan, Dh)),
                 .q = floats(copied_floats(Dh)),
                 .p = floats(kScoreFloats),
                 .correction = floats(kQueryBlock),
                 .rows = floats(kQueryBlock)};
  }
  parallel_for(ctx, static_cast<std::int64_t>(tasks.size()), [&](std::int64_t i, int worker) {
    ForwardTask(a, totals, tasks[static_cast<std::size_t>(i)], spaces[worker]).run();
  });
}

}  // namespace grist::cpu
