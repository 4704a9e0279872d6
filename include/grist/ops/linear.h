#pragma once
// Linear layer without bias:  y = x W^T,  W (O, I) as in Hugging Face files.
// CPU: every output is one fused multiply-add chain in ascending index of the summed dim, starting
// from 0 (or from the old value where `accumulate` says so): a row's result depends on nothing but
// that row and W.
#include "grist/core/context.h"
#include "grist/core/tensor.h"
#include "grist/ops/weight.h"

namespace grist::ops {

struct LinearForward {
  TensorView y;       // out (N, O)
  ConstTensorView x;  // in  (N, I)
  WeightView w;       // in  (O, I)
};
void linear_forward(const Context& ctx, const LinearForward& a);  // needs ctx.scratch

struct LinearBackwardInput {
  TensorView dx;            // out (N, I)  dx = dy W
  ConstTensorView dy;       // in  (N, O)
  WeightView w;             // in  (O, I)
  bool accumulate = false;  // add to dx
};
void linear_backward_input(const Context& ctx, const LinearBackwardInput& a);  // needs ctx.scratch

struct LinearBackwardWeight {
  TensorView dw;           // out (O, I) f32  dw = dy^T x
  ConstTensorView dy;      // in  (N, O)
  ConstTensorView x;       // in  (N, I)
  bool accumulate = true;  // add to dw
};
void linear_backward_weight(const Context& ctx,
                            const LinearBackwardWeight& a);  // needs ctx.scratch

}  // namespace grist::ops
