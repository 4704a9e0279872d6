#pragma once
// Output layer and loss in one, in chunks of tokens: the (N, V) logits are never stored whole.
//   logits = x W^T,   loss[n] = logsumexp(logits[n]) - logits[n, target[n]]
#include "grist/core/context.h"
#include "grist/core/tensor.h"
#include "grist/ops/weight.h"

namespace grist::ops {

struct LinearCrossEntropy {
  TensorView losses;  // out (N) f32; 0 where the target is negative
  TensorView dx;      // out (N, D): grad_scale * d(sum of losses)/dx; empty: no gradients wanted
  TensorView dw;      // out (V, D) f32: grad_scale * d(sum of losses)/dW; empty with dx
  ConstTensorView x;  // in  (N, D)
  WeightView w;       // in  (V, D)
  ConstTensorView targets;  // in  (N) i32; negative: not counted
  // in  (1) f32, where the operation computes; empty with dx. Usually 1 / target tokens of the
  // global batch: known before the call, but another one in every step.
  ConstTensorView grad_scale;
  bool accumulate = true;  // add to dw
};
void linear_cross_entropy(const Context& ctx, const LinearCrossEntropy& a);  // needs ctx.scratch

}  // namespace grist::ops
