#include "grist/ops/norm.h"

#include "operand.h"

namespace grist::ops {

void rms_norm_forward(const Context& ctx, const RmsNormForward& a) {
  constexpr const char* kOp = "rms_norm_forward";
  require_rank(kOp, "x", a.x, 2);
  const Shape shape = a.x.shape;
  const std::int64_t N = shape[0];
  const std::int64_t D = shape[1];
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "x", a.x, A, shape);
  require(kOp, "y", a.y, A, shape);
  require(kOp, "rstd", a.rstd, DType::f32, {N});
  require(kOp, "w", a.w, DType::f32, {D});
  require_if_given(kOp, "residual", a.residual, A, shape);
  require_if_given(kOp, "h", a.h, A, shape);
  GRIST_CHECK(D > 0, "{}: rows without elements", kOp);
  if (N == 0) return;
  GRIST_CHECK(!a.residual || a.h, "{}: a residual needs h, where the sum goes", kOp);
  GRIST_DISPATCH(rms_norm_forward, ctx, a);
}

void rms_norm_backward(const Context& ctx, const RmsNormBackward& a) {
  constexpr const char* kOp = "rms_norm_backward";
  require_rank(kOp, "h", a.h, 2);
  const Shape shape = a.h.shape;
  const std::int64_t N = shape[0];
  const std::int64_t D = shape[1];
  const DType A = require_activation(kOp, "h", ctx, a.h);
  require(kOp, "h", a.h, A, shape);
  require(kOp, "dh", a.dh, A, shape);
  require(kOp, "dy", a.dy, A, shape);
  require(kOp, "dw", a.dw, DType::f32, {D});
  require(kOp, "rstd", a.rstd, DType::f32, {N});
  require(kOp, "w", a.w, DType::f32, {D});
  require_if_given(kOp, "dresidual", a.dresidual, A, shape);
  require_scratch(kOp, ctx);
  GRIST_CHECK(D > 0, "{}: rows without elements", kOp);
  if (N == 0) return;
  GRIST_DISPATCH(rms_norm_backward, ctx, a);
}

}  // namespace grist::ops
