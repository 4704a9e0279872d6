#include "grist/ops/dispatch.h"

#include <limits>

#include "operand.h"

namespace grist::ops {

void dispatch_plan(const Context& ctx, const DispatchPlan& a) {
  constexpr const char* kOp = "dispatch_plan";
  require_rank(kOp, "ids", a.ids, 2);
  const std::int64_t N = a.ids.shape[0];
  const std::int64_t K = a.ids.shape[1];
  const std::int64_t R = N * K;
  GRIST_CHECK(a.num_experts >= 1, "{}: {} experts", kOp, a.num_experts);
  GRIST_CHECK(a.capacity >= 0, "{}: capacity {}", kOp, a.capacity);
  GRIST_CHECK(R <= std::numeric_limits<std::int32_t>::max(),
              "{}: {} rows do not fit 32 bits; use a smaller micro_batch_size", kOp, R);
  require(kOp, "ids", a.ids, DType::i32, {N, K});
  require(kOp, "weights", a.weights, DType::f32, {N, K});
  require(kOp, "expert_offsets", a.expert_offsets, DType::i32, {a.num_experts + 1});
  require(kOp, "row_token", a.row_token, DType::i32, {R});
  require(kOp, "row_weight", a.row_weight, DType::f32, {R});
  require(kOp, "slot_row", a.slot_row, DType::i32, {N, K});
  require_scratch(kOp, ctx);
  GRIST_DISPATCH(dispatch_plan, ctx, a);
}

void gather_sum(const Context& ctx, const GatherSum& a) {
  constexpr const char* kOp = "gather_sum";
  require_rank(kOp, "y", a.y, 2);
  require_rank(kOp, "rows", a.rows, 2);
  require_rank(kOp, "slot_row", a.slot_row, 2);
  const std::int64_t N = a.y.shape[0];
  const std::int64_t D = a.y.shape[1];
  const std::int64_t K = a.slot_row.shape[1];
  const DType A = require_activation(kOp, "rows", ctx, a.rows);
  require(kOp, "y", a.y, A, {N, D});
  require(kOp, "rows", a.rows, A, {a.rows.shape[0], D});
  require(kOp, "slot_row", a.slot_row, DType::i32, {N, K});
  require_if_given(kOp, "weights", a.weights, DType::f32, {N, K});
  if (a.y.numel() == 0) return;
  GRIST_DISPATCH(gather_sum, ctx, a);
}

void gather_rows(const Context& ctx, const GatherRows& a) {
  constexpr const char* kOp = "gather_rows";
  require_rank(kOp, "y", a.y, 2);
  require_rank(kOp, "x", a.x, 2);
  const std::int64_t R = a.y.shape[0], D = a.y.shape[1], N = a.x.shape[0];
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "y", a.y, A, {R, D});
  require(kOp, "x", a.x, A, {N, D});
  require(kOp, "index", a.index, DType::i32, {R});
  if (a.y.numel() == 0) return;
  GRIST_DISPATCH(gather_rows, ctx, a);
}

void regroup_plan(const Context& ctx, const RegroupPlan& a) {
  constexpr const char* kOp = "regroup_plan";
  require_rank(kOp, "counts", a.counts, 2);
  require_rank(kOp, "row_received", a.row_received, 1);
  const std::int64_t S = a.counts.shape[0], E = a.counts.shape[1], R = a.row_received.shape[0];
  GRIST_CHECK(S * E > 0, "{}: counts is {}", kOp, a.counts.shape.str());
  GRIST_CHECK(R <= std::numeric_limits<std::int32_t>::max(),
              "{}: {} rows do not fit 32 bits; use a smaller micro_batch_size", kOp, R);
  require(kOp, "counts", a.counts, DType::i32, {S, E});
  require(kOp, "expert_offsets", a.expert_offsets, DType::i32, {E + 1});
  require(kOp, "source_offsets", a.source_offsets, DType::i32, {E * S + 1});
  require(kOp, "row_received", a.row_received, DType::i32, {R});
  require(kOp, "received_row", a.received_row, DType::i32, {R});
  require_scratch(kOp, ctx);
  GRIST_DISPATCH(regroup_plan, ctx, a);
}

}  // namespace grist::ops
