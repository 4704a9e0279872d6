#include "grist/ops/experts.h"

#include "grist/core/device.h"
#include "operand.h"

namespace grist::ops {

namespace {

// Shape (E + 1); where the host reads it for nothing, also the order of the values and the bound R.
void require_offsets(const char* op, const Context& ctx, const ConstTensorView& v, std::int64_t E,
                     std::int64_t R) {
  require(op, "expert_offsets", v, DType::i32, {E + 1});
  if (!properties(ctx.device).reads_host_memory) return;
  const auto* offsets = v.as<std::int32_t>();
  for (std::int64_t e = 0; e <= E; ++e) {
    const std::int32_t least = e == 0 ? 0 : offsets[e - 1];
    if (offsets[e] < least || offsets[e] > R) {
      fail(ExitCode::internal, "{}: expert_offsets[{}] is {}, want {} to {}", op, e, offsets[e],
           least, R);
    }
  }
}

// An index of R rows into N tokens, or nothing, and then row r is its own token: R <= N.
void require_tokens(const char* op, const char* operand, const Context& ctx,
                    const ConstTensorView& index, const ConstTensorView& offsets, std::int64_t R,
                    std::int64_t N) {
  if (!index) {
    if (R > N) fail(ExitCode::internal, "{}: {} is missing for {} rows of {}", op, operand, R, N);
    return;
  }
  require(op, operand, index, DType::i32, {R});
  if (!properties(ctx.device).reads_host_memory) return;
  const auto* token = index.as<std::int32_t>();
  const auto* rows = offsets.as<std::int32_t>();
  for (std::int64_t r = rows[0]; r < rows[offsets.shape[0] - 1]; ++r) {
    if (token[r] < 0 || token[r] >= N) {
      fail(ExitCode::internal, "{}: {}[{}] is {}, want 0 to {}", op, operand, r, token[r], N - 1);
    }
  }
}

}  // namespace

void expert_up_forward(const Context& ctx, const ExpertUpForward& a) {
  constexpr const char* kOp = "expert_up_forward";
  require_rank(kOp, "a", a.a, 2);
  require_rank(kOp, "x", a.x, 2);
  require_rank(kOp, "expert_offsets", a.expert_offsets, 1);
  const std::int64_t R = a.a.shape[0], F = a.a.shape[1], N = a.x.shape[0], D = a.x.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "z", a.z, A, {R, 2 * F});
  require(kOp, "a", a.a, A, {R, F});
  require(kOp, "x", a.x, A, {N, D});
  require_offsets(kOp, ctx, a.expert_offsets, E, R);
  require_tokens(kOp, "row_token", ctx, a.row_token, a.expert_offsets, R, N);
  require_weight(kOp, a.w, ctx.device, A, {E, 2 * F, D});
  require_scratch(kOp, ctx);
  if (R == 0) return;
  GRIST_DISPATCH(expert_up_forward, ctx, a);
}

void expert_down_forward(const Context& ctx, const ExpertDownForward& a) {
  constexpr const char* kOp = "expert_down_forward";
  require_rank(kOp, "y", a.y, 2);
  require_rank(kOp, "a", a.a, 2);
  require_rank(kOp, "expert_offsets", a.expert_offsets, 1);
  const std::int64_t R = a.a.shape[0], F = a.a.shape[1], D = a.y.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  const DType A = require_activation(kOp, "a", ctx, a.a);
  require(kOp, "y", a.y, A, {R, D});
  require(kOp, "a", a.a, A, {R, F});
  require_offsets(kOp, ctx, a.expert_offsets, E, R);
  require_weight(kOp, a.w, ctx.device, A, {E, D, F});
  require_scratch(kOp, ctx);
  if (R == 0) return;
  GRIST_DISPATCH(expert_down_forward, ctx, a);
}

void expert_down_backward(const Context& ctx, const ExpertDownBackward& a) {
  constexpr const char* kOp = "expert_down_backward";
  require_rank(kOp, "weighted_a", a.weighted_a, 2);
  require_rank(kOp, "dy", a.dy, 2);
  require_rank(kOp, "expert_offsets", a.expert_offsets, 1);
  const std::int64_t R = a.weighted_a.shape[0], F = a.weighted_a.shape[1];
  const std::int64_t N = a.dy.shape[0], D = a.dy.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  const DType A = require_activation(kOp, "z", ctx, a.z);
  require(kOp, "dz", a.dz, A, {R, 2 * F});
  require(kOp, "weighted_a", a.weighted_a, A, {R, F});
  require(kOp, "drow_weight", a.drow_weight, DType::f32, {R});
  require(kOp, "dy", a.dy, A, {N, D});
  require(kOp, "z", a.z, A, {R, 2 * F});
  if (a.dz.data == a.z.data && R > 0) fail(ExitCode::internal, "{}: dz aliases z", kOp);
  require(kOp, "row_weight", a.row_weight, DType::f32, {R});
  require_offsets(kOp, ctx, a.expert_offsets, E, R);
  require_tokens(kOp, "row_token", ctx, a.row_token, a.expert_offsets, R, N);
  require_weight(kOp, a.w, ctx.device, A, {E, D, F});
  require_scratch(kOp, ctx);
  if (R == 0) return;
  GRIST_DISPATCH(expert_down_backward, ctx, a);
}

void expert_up_backward(const Context& ctx, const ExpertUpBackward& a) {
  constexpr const char* kOp = "expert_up_backward";
  require_rank(kOp, "dx", a.dx, 2);
  require_rank(kOp, "dz", a.dz, 2);
  require_rank(kOp, "expert_offsets", a.expert_offsets, 1);
  const std::int64_t R = a.dx.shape[0], D = a.dx.shape[1], F2 = a.dz.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  const DType A = require_activation(kOp, "dz", ctx, a.dz);
  require(kOp, "dx", a.dx, A, {R, D});
  require(kOp, "dz", a.dz, A, {R, F2});
  require_offsets(kOp, ctx, a.expert_offsets, E, R);
  require_weight(kOp, a.w, ctx.device, A, {E, F2, D});
  require_scratch(kOp, ctx);
  if (R == 0) return;
  GRIST_DISPATCH(expert_up_backward, ctx, a);
}

void expert_weight_gradient(const Context& ctx, const ExpertWeightGradient& a) {
  constexpr const char* kOp = "expert_weight_gradient";
  require_rank(kOp, "dw", a.dw, 3);
  require_rank(kOp, "dy", a.dy, 2);
  require_rank(kOp, "x", a.x, 2);
  const std::int64_t E = a.dw.shape[0], O = a.dw.shape[1], I = a.dw.shape[2];
  const std::int64_t dy_rows = a.dy.shape[0], x_rows = a.x.shape[0];
  const std::int64_t R = a.dy_token ? a.dy_token.shape[0] : a.x_token ? a.x_token.shape[0] : x_rows;
  require(kOp, "dw", a.dw, DType::f32, {E, O, I});
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "dy", a.dy, A, {dy_rows, O});
  require(kOp, "x", a.x, A, {x_rows, I});
  require_offsets(kOp, ctx, a.expert_offsets, E, R);
  require_tokens(kOp, "dy_token", ctx, a.dy_token, a.expert_offsets, R, dy_rows);
  require_tokens(kOp, "x_token", ctx, a.x_token, a.expert_offsets, R, x_rows);
  require_scratch(kOp, ctx);
  if (R == 0 && a.accumulate) return;
  GRIST_DISPATCH(expert_weight_gradient, ctx, a);
}

}  // namespace grist::ops
