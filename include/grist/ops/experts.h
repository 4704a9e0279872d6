#pragma once
// Grouped matmuls of a MoE layer: each expert e multiplies its own block of rows,
// [expert_offsets[e], expert_offsets[e+1]). Rows of one expert are consecutive; R is an upper
// bound, rows past expert_offsets[E] are neither read nor written. Gathered operands take row r
// from token row_token[r]; an empty row_token means row r itself (rows that arrived sorted).
//
//   z = x[row_token] W13^T          (gate columns [0, F), up columns [F, 2F))
//   a = silu(z_gate) * z_up
//   y = a W2^T
//   token output = sum_k weight_k * y[row of choice k]       (ops/dispatch.h, gather_sum)
//
// Saved for backward: x, z and the routing, nothing else (a is made again from z; neither y nor a
// scaled dy is stored). The gradient of the row weight s is <dy W2, a> (SonicMoE, arXiv
// 2512.14080).
#include "grist/core/context.h"
#include "grist/core/tensor.h"
#include "grist/ops/weight.h"

namespace grist::ops {

struct ExpertUpForward {
  TensorView z;                    // out (R, 2F)
  TensorView a;                    // out (R, F)
  ConstTensorView x;               // in  (N, D)
  ConstTensorView row_token = {};  // in  (R) i32, or empty
  ConstTensorView expert_offsets;  // in  (E+1) i32
  WeightView w;                    // in  (E, 2F, D)
};
void expert_up_forward(const Context& ctx, const ExpertUpForward& a);  // needs ctx.scratch

struct ExpertDownForward {
  TensorView y;                    // out (R, D)
  ConstTensorView a;               // in  (R, F)
  ConstTensorView expert_offsets;  // in  (E+1) i32
  WeightView w;                    // in  (E, D, F)
};
void expert_down_forward(const Context& ctx, const ExpertDownForward& a);  // needs ctx.scratch

// h = dy[row_token] W2;  da = s * h;  dz = swiglu'(z) da;  weighted_a = s * a;  drow_weight = <h,
// a>
struct ExpertDownBackward {
  TensorView dz;                   // out (R, 2F)
  TensorView weighted_a;           // out (R, F)  operand of dW2
  TensorView drow_weight;          // out (R) f32
  ConstTensorView dy;              // in  (N, D)  gradient of the token output
  ConstTensorView z;               // in  (R, 2F)
  ConstTensorView row_token = {};  // in  (R) i32, or empty
  ConstTensorView row_weight;      // in  (R) f32
  ConstTensorView expert_offsets;  // in  (E+1) i32
  WeightView w;                    // in  (E, D, F)
};
void expert_down_backward(const Context& ctx, const ExpertDownBackward& a);  // needs ctx.scratch

struct ExpertUpBackward {
  TensorView dx;                   // out (R, D)  dx = dz W13; gather_sum brings it back to tokens
  ConstTensorView dz;              // in  (R, 2F)
  ConstTensorView expert_offsets;  // in  (E+1) i32
  WeightView w;                    // in  (E, 2F, D)
};
void expert_up_backward(const Context& ctx, const ExpertUpBackward& a);  // needs ctx.scratch

// dw[e] = sum over rows r of e:  dy[dy_token[r]]^T x[x_token[r]]. Experts without rows write zeros
// (or leave dw when accumulating).
struct ExpertWeightGradient {
  TensorView dw;                   // out (E, O, I) f32
  ConstTensorView dy;              // in  (R, O), or (N, O) with dy_token
  ConstTensorView dy_token = {};   // in  (R) i32, or empty
  ConstTensorView x;               // in  (R, I), or (N, I) with x_token
  ConstTensorView x_token = {};    // in  (R) i32, or empty
  ConstTensorView expert_offsets;  // in  (E+1) i32
  bool accumulate = true;
};
void expert_weight_gradient(const Context& ctx,
                            const ExpertWeightGradient& a);  // needs ctx.scratch

}  // namespace grist::ops
