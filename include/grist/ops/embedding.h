#pragma once
// Token embedding: y[n] = table[ids[n]]. Backward adds rows of one token in ascending n (no
// atomics). An id outside the table is refused on the CPU; a GPU gives NaN for it, and no gradient.
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

struct EmbeddingForward {
  TensorView y;           // out (N, D)
  ConstTensorView table;  // in  (V, D) f32
  ConstTensorView ids;    // in  (N) i32, each in [0, V)
};
void embedding_forward(const Context& ctx, const EmbeddingForward& a);

struct EmbeddingBackward {
  TensorView dtable;    // inout (V, D) f32, added to
  ConstTensorView dy;   // in  (N, D)
  ConstTensorView ids;  // in  (N) i32
};
void embedding_backward(const Context& ctx, const EmbeddingBackward& a);  // needs ctx.scratch

}  // namespace grist::ops
