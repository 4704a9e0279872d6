#include "grist/ops/router.h"

#include <cmath>

#include "operand.h"

namespace grist::ops {

namespace {

struct Dims {
  std::int64_t N, E, K;
};

Dims require_choices(const char* op, const ConstTensorView& logits, const ConstTensorView& ids,
                     const ConstTensorView& weights, const RouterMode& mode) {
  require_rank(op, "logits", logits, 2);
  require_rank(op, "ids", ids, 2);
  const Dims d{logits.shape[0], logits.shape[1], ids.shape[1]};
  GRIST_CHECK(1 <= d.K && d.K <= d.E, "{}: {} experts a token out of {}", op, d.K, d.E);
  GRIST_CHECK(d.E <= kMaxExperts, "{}: {} experts, at most {}", op, d.E, kMaxExperts);
  GRIST_CHECK(std::isfinite(mode.routed_scale) && mode.routed_scale > 0, "{}: routed_scale {}", op,
              mode.routed_scale);
  require(op, "logits", logits, DType::f32, {d.N, d.E});
  require(op, "ids", ids, DType::i32, {d.N, d.K});
  require(op, "weights", weights, DType::f32, {d.N, d.K});
  return d;
}

// S segments of equal length.
std::int64_t require_segments(const char* op, const ConstTensorView& v, std::int64_t N) {
  require_rank(op, "segments", v, 2);
  const std::int64_t S = v.shape[0];
  GRIST_CHECK(S >= 1 && N % S == 0, "{}: {} tokens do not divide into {} segments", op, N, S);
  return S;
}

}  // namespace

void router_forward(const Context& ctx, const RouterForward& a) {
  const Dims d = require_choices("router_forward", a.logits, a.ids, a.weights, a.mode);
  require_if_given("router_forward", "bias", a.bias, DType::f32, {d.E});
  if (d.N == 0) return;
  GRIST_DISPATCH(router_forward, ctx, a);
}

void router_statistics(const Context& ctx, const RouterStatistics& a) {
  const Dims d = require_choices("router_statistics", a.logits, a.ids, a.weights, a.mode);
  const std::int64_t S = require_segments("router_statistics", a.counts, d.N);
  require("router_statistics", "counts", a.counts, DType::i64, {S, d.E});
  require("router_statistics", "fractions", a.fractions, DType::f32, {S, d.E});
  require("router_statistics", "prob_sums", a.prob_sums, DType::f64, {S, d.E});
  require("router_statistics", "scalars", a.scalars, DType::f64, {3});
  require_scratch("router_statistics", ctx);
  GRIST_DISPATCH(router_statistics, ctx, a);
}

void router_backward(const Context& ctx, const RouterBackward& a) {
  const Dims d = require_choices("router_backward", a.logits, a.ids, a.weights, a.mode);
  require("router_backward", "dlogits", a.dlogits, DType::f32, {d.N, d.E});
  require("router_backward", "slot_row", a.slot_row, DType::i32, {d.N, d.K});
  require_rank("router_backward", "drow_weight", a.drow_weight, 1);
  require("router_backward", "drow_weight", a.drow_weight, DType::f32, a.drow_weight.shape);
  if (a.load_fraction) {
    const std::int64_t S = require_segments("router_backward", a.load_fraction, d.N);
    require("router_backward", "load_fraction", a.load_fraction, DType::f32, {S, d.E});
  }
  if (d.N == 0) return;
  GRIST_DISPATCH(router_backward, ctx, a);
}

}  // namespace grist::ops
