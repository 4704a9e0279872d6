#pragma once
// SwiGLU (Shazeer 2020):  a = silu(gate) * up,  z = (gate, up) side by side: gate columns [0, F),
// up columns [F, 2F).
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

struct SwigluForward {
  TensorView a;       // out (N, F)
  ConstTensorView z;  // in  (N, 2F)
};
void swiglu_forward(const Context& ctx, const SwigluForward& a);

struct SwigluBackward {
  TensorView dz;       // out (N, 2F); may alias z
  ConstTensorView da;  // in  (N, F)
  ConstTensorView z;   // in  (N, 2F)
};
void swiglu_backward(const Context& ctx, const SwigluBackward& a);

}  // namespace grist::ops
