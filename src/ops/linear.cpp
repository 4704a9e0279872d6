#include "grist/ops/linear.h"

#include "operand.h"

namespace grist::ops {

namespace {

// The router works in f32 on activations of any dtype; everything else has one dtype throughout.
// `wide` is the operand that tells.
bool is_router(const ConstTensorView& wide, DType activation) {
  return wide.dtype == DType::f32 && activation == DType::bf16;
}

}  // namespace

void linear_forward(const Context& ctx, const LinearForward& a) {
  constexpr const char* kOp = "linear_forward";
  require_rank(kOp, "x", a.x, 2);
  require_rank(kOp, "y", a.y, 2);
  const std::int64_t N = a.x.shape[0], I = a.x.shape[1], O = a.y.shape[1];
  const DType A = require_activation(kOp, "x", ctx, a.x);
  const DType out = is_router(a.y, A) ? DType::f32 : A;
  require(kOp, "x", a.x, A, {N, I});
  require(kOp, "y", a.y, out, {N, O});
  require_weight(kOp, a.w, ctx.device, out, {O, I});
  require_scratch(kOp, ctx);
  if (N == 0) return;
  GRIST_DISPATCH(linear_forward, ctx, a);
}

void linear_backward_input(const Context& ctx, const LinearBackwardInput& a) {
  constexpr const char* kOp = "linear_backward_input";
  require_rank(kOp, "dx", a.dx, 2);
  require_rank(kOp, "dy", a.dy, 2);
  const std::int64_t N = a.dx.shape[0], I = a.dx.shape[1], O = a.dy.shape[1];
  const DType A = require_activation(kOp, "dx", ctx, a.dx);
  const DType out = is_router(a.dy, A) ? DType::f32 : A;
  require(kOp, "dx", a.dx, A, {N, I});
  require(kOp, "dy", a.dy, out, {N, O});
  require_weight(kOp, a.w, ctx.device, out, {O, I});
  require_scratch(kOp, ctx);
  if (N == 0) return;
  GRIST_DISPATCH(linear_backward_input, ctx, a);
}

void linear_backward_weight(const Context& ctx, const LinearBackwardWeight& a) {
  constexpr const char* kOp = "linear_backward_weight";
  require_rank(kOp, "dw", a.dw, 2);
  require_rank(kOp, "x", a.x, 2);
  const std::int64_t N = a.x.shape[0], O = a.dw.shape[0], I = a.dw.shape[1];
  require(kOp, "dw", a.dw, DType::f32, {O, I});
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "dy", a.dy, is_router(a.dy, A) ? DType::f32 : A, {N, O});
  require(kOp, "x", a.x, A, {N, I});
  require_scratch(kOp, ctx);
  if (N == 0 && a.accumulate) return;
  GRIST_DISPATCH(linear_backward_weight, ctx, a);
}

}  // namespace grist::ops
