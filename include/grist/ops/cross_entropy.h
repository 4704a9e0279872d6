#pragma once
// Output layer and loss in one, in chunks of tokens: the (N, V) logits are never stored whole.
//   logits = x W^T,   loss[n] = logsumexp(logits[n]) - logits[n, target[n]],   z[n] =
//   logsumexp(logits[n])^2 total = grad_scale * sum_n (loss[n] + z_coeff * z[n])      the z-loss of
//   PaLM (arXiv 2204.02311, 5)
#include "grist/core/context.h"
#include "grist/core/tensor.h"
#include "grist/ops/weight.h"

namespace grist::ops {

struct LinearCrossEntropy {
  TensorView losses;        // out (N) f32; 0 where the target is negative
  TensorView z;             // out (N) f32; 0 where the target is negative; empty: not wanted
  TensorView dx;            // out (N, D): d total/dx; empty: no gradients wanted
  TensorView dw;            // out (V, D) f32: d total/dW; empty with dx
  ConstTensorView x;        // in  (N, D)
  WeightView w;             // in  (V, D)
  ConstTensorView targets;  // in  (N) i32; negative: not counted
  // in  (1) f32, where the operation computes; empty with dx. Usually 1 / target tokens of the
  // global batch: known before the call, but another one in every step.
  ConstTensorView grad_scale;
  float z_coeff = 0.0F;    // not 0: z is wanted too; 0 gives the bits of the loss alone
  bool accumulate = true;  // add to dw
};
void linear_cross_entropy(const Context& ctx, const LinearCrossEntropy& a);  // needs ctx.scratch

}  // namespace grist::ops
