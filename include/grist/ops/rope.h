#pragma once
// Rotary position embedding, half-split (NeoX, Hugging Face):  angle(p, i) = p * theta^(-2i/Dh), i
// < Dh/2
//   out[i] = x[i] cos - x[i+Dh/2] sin,   out[i+Dh/2] = x[i+Dh/2] cos + x[i] sin.   Its backward is
//   the inverse rotation.
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

struct RopeTable {
  TensorView table;  // out (P, Dh) f32: cos in [0, Dh/2), sin in [Dh/2, Dh); computed in double
  double theta = 10000.0;
};
void rope_table(const Context& ctx, const RopeTable& a);

struct Rope {
  TensorView x;               // inout (N, H, Dh)
  ConstTensorView positions;  // in (N) i32, each in [0, P): else an error (CPU) or NaN (GPU)
  ConstTensorView table;      // in (P, Dh) f32
  bool inverse = false;
};
void rope(const Context& ctx, const Rope& a);

}  // namespace grist::ops
