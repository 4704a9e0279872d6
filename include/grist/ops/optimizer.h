#pragma once
// Parameter updates and the reductions around them.
#include "grist/core/context.h"
#include "grist/core/tensor.h"
#include "grist/core/tensor_part.h"

namespace grist::ops {

// AdamW (Loshchilov & Hutter 2019), decoupled decay, in fp32:
//   g = grad * control[0];  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p -= lr * ( (m / (1-b1^step)) / (sqrt(v / (1-b2^step)) + eps) + weight_decay * p )
// control[1] == 0 leaves p, m, v exactly as they are (selected, never multiplied).
struct AdamW {
  TensorView param;         // inout (n) f32
  TensorView m;             // inout (n) f32
  TensorView v;             // inout (n) f32
  ConstTensorView grad;     // in    (n) f32
  ConstTensorView control;  // in    (2) f32: clip factor; 1 to apply, 0 to skip
  float lr = 0.0F;
  float beta1 = 0.9F;
  float beta2 = 0.95F;
  float eps = 1e-8F;
  float weight_decay = 0.0F;
  std::int64_t step = 1;  // updates applied so far, this one included
};
void adamw(const Context& ctx, const AdamW& a);

constexpr std::int64_t kNormChunk = 64 * 1024;  // elements; ZeRO cuts on these edges

// Sum of squares of each of C chunks anywhere in memory, in double: a function of the chunk's
// elements alone.
struct SquaredSums {
  TensorView partials;     // out (C) f64
  ConstTensorView chunks;  // in  (C, 2) i64: address of the first f32 element, number of elements
};
void squared_sums(const Context& ctx, const SquaredSums& a);

// Sum by a fixed balanced binary tree over positions.
struct TreeSum {
  TensorView sum;            // out (1) f64
  ConstTensorView partials;  // in  (n) f64
};
void tree_sum(const Context& ctx, const TreeSum& a);

// Sum of an f32 vector in double: fixed chunks, then the tree.
struct Sum {
  TensorView sum;     // out (1) f64
  ConstTensorView x;  // in  (n) f32
};
void sum(const Context& ctx, const Sum& a);  // needs ctx.scratch

// x[i] = std * normal(j) of the counter-based stream (seed, name), where j is the place in the
// flattened global tensor of the part's element i: a part has the values of the whole.
struct NormalInit {
  TensorView x;     // out (n) f32
  TensorPart part;  // n elements
  Shape shape;      // of the global tensor
  float std = 0.02F;
  std::uint64_t seed = 0;
  const char* name = "";
};
void normal_init(const Context& ctx, const NormalInit& a);

struct Fill {
  TensorView x;  // out (n) f32
  float value = 0.0F;
};
void fill(const Context& ctx, const Fill& a);

// sum[i] = the tree of tree_sum over p of parts[p, i], in f32. Adds gradients of lanes and ranks.
struct TreeAdd {
  TensorView sum;         // out (n) f32; may be one of the rows of parts
  ConstTensorView parts;  // in  (P, n) f32, P >= 1
};
void tree_add(const Context& ctx, const TreeAdd& a);

struct Add {
  TensorView y;       // inout (n) f32: y += x
  ConstTensorView x;  // in    (n) f32
};
void add(const Context& ctx, const Add& a);

}  // namespace grist::ops
