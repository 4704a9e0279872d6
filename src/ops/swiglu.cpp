#include "grist/ops/swiglu.h"

#include "operand.h"

namespace grist::ops {

void swiglu_forward(const Context& ctx, const SwigluForward& a) {
  constexpr const char* kOp = "swiglu_forward";
  require_rank(kOp, "a", a.a, 2);
  const std::int64_t N = a.a.shape[0];
  const std::int64_t F = a.a.shape[1];
  const DType A = require_activation(kOp, "z", ctx, a.z);
  require(kOp, "a", a.a, A, {N, F});
  require(kOp, "z", a.z, A, {N, 2 * F});
  if (N == 0) return;
  GRIST_DISPATCH(swiglu_forward, ctx, a);
}

void swiglu_backward(const Context& ctx, const SwigluBackward& a) {
  constexpr const char* kOp = "swiglu_backward";
  require_rank(kOp, "da", a.da, 2);
  const std::int64_t N = a.da.shape[0];
  const std::int64_t F = a.da.shape[1];
  const DType A = require_activation(kOp, "z", ctx, a.z);
  require(kOp, "da", a.da, A, {N, F});
  require(kOp, "dz", a.dz, A, {N, 2 * F});
  require(kOp, "z", a.z, A, {N, 2 * F});
  if (N == 0) return;
  GRIST_DISPATCH(swiglu_backward, ctx, a);
}

}  // namespace grist::ops
