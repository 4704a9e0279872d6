#pragma once
// RMSNorm over the last axis with the residual addition in front (Zhang & Sennrich 2019; Llama's
// form):
//   h = x + residual,   y = h * rstd * w,   rstd = 1 / sqrt(mean(h^2) + eps)
// Also used per head (qk-norm) on (N*H, Dh).
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

struct RmsNormForward {
  TensorView y;  // out (N, D)
  TensorView h;  // out (N, D), may alias x or residual; empty when residual is empty (then h is x)
  TensorView rstd;           // out (N) f32
  ConstTensorView x;         // in  (N, D)
  ConstTensorView residual;  // in  (N, D), or empty
  ConstTensorView w;         // in  (D) f32
  float eps = 1e-5F;
};
void rms_norm_forward(const Context& ctx, const RmsNormForward& a);

// dh = dresidual + d(y)/d(h)^T dy;  dw += sum over rows (fixed chunks of rows, added in order)
struct RmsNormBackward {
  TensorView dh;              // out (N, D); may alias dresidual or dy
  TensorView dw;              // inout (D) f32, added to
  ConstTensorView dy;         // in  (N, D)
  ConstTensorView dresidual;  // in  (N, D), or empty
  ConstTensorView h;          // in  (N, D)
  ConstTensorView rstd;       // in  (N) f32
  ConstTensorView w;          // in  (D) f32
};
void rms_norm_backward(const Context& ctx, const RmsNormBackward& a);  // needs ctx.scratch

}  // namespace grist::ops
