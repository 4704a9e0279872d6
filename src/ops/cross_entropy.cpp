#include "grist/ops/cross_entropy.h"

#include "operand.h"

namespace grist::ops {

void linear_cross_entropy(const Context& ctx, const LinearCrossEntropy& a) {
  constexpr const char* kOp = "linear_cross_entropy";
  require_rank(kOp, "x", a.x, 2);
  const std::int64_t N = a.x.shape[0];
  const std::int64_t D = a.x.shape[1];
  GRIST_CHECK(a.w.shape.rank() == 2 && a.w.shape[0] > 0, "{}: w is {}, want (V, {})", kOp,
              a.w.shape.str(), D);
  const std::int64_t V = a.w.shape[0];
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "x", a.x, A, {N, D});
  require_weight(kOp, a.w, ctx.device, A, {V, D});
  require(kOp, "targets", a.targets, DType::i32, {N});
  require(kOp, "losses", a.losses, DType::f32, {N});
  require_if_given(kOp, "z", a.z, DType::f32, {N});
  GRIST_CHECK(a.z_coeff == 0.0F || a.z || N == 0, "{}: z_coeff without z", kOp);
  require_if_given(kOp, "dx", a.dx, A, {N, D});
  require_if_given(kOp, "dw", a.dw, DType::f32, {V, D});
  // With no rows dx has no data and yet dw may be wanted (to be cleared), so only then may they
  // differ.
  GRIST_CHECK(N == 0 || static_cast<bool>(a.dx) == static_cast<bool>(a.dw),
              "{}: dx and dw come together", kOp);
  if (a.dx) require(kOp, "grad_scale", a.grad_scale, DType::f32, {1});
  require_scratch(kOp, ctx);
  GRIST_DISPATCH(linear_cross_entropy, ctx, a);
}

}  // namespace grist::ops
