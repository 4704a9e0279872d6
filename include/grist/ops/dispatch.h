#pragma once
// From choices to rows and back. The plan sorts the N*K choices by expert, stably in token order,
// after capacity dropping. Where experts live on other ranks, rows are packed (gather_rows), sent,
// and regrouped by the rank that holds the experts (regroup_plan).
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

enum class DropPolicy : std::uint8_t {
  probs,     // an expert keeps its `capacity` largest weights; ties to the lower token
  position,  // first come, first served: all first choices in token order, then all second choices,
             // ... (GShard)
};

struct DispatchPlan {
  TensorView expert_offsets;  // out (E+1) i32  expert e owns rows [offsets[e], offsets[e+1])
  TensorView row_token;       // out (R) i32    token of each row, ascending inside an expert
  TensorView row_weight;      // out (R) f32
  TensorView slot_row;        // out (N, K) i32 row of each choice; -1: dropped
  ConstTensorView ids;        // in  (N, K) i32
  ConstTensorView weights;    // in  (N, K) f32
  std::int64_t num_experts = 0;
  std::int64_t capacity = 0;  // rows an expert takes at most; 0: dropless. ceil(CF * K * N / E)
  DropPolicy policy = DropPolicy::probs;
};
void dispatch_plan(const Context& ctx, const DispatchPlan& a);  // R = N*K; needs ctx.scratch

// y[n] = sum_k weights[n, k] * rows[slot_row[n, k]], k ascending; dropped choices add nothing.
struct GatherSum {
  TensorView y;                  // out (N, D)
  ConstTensorView rows;          // in  (R, D)
  ConstTensorView slot_row;      // in  (N, K) i32
  ConstTensorView weights = {};  // in  (N, K) f32, or empty: all 1
  bool accumulate = false;       // add to y
};
void gather_sum(const Context& ctx, const GatherSum& a);

// y[r] = x[index[r]].
struct GatherRows {
  TensorView y;           // out (R, D) f32; must not overlap x
  ConstTensorView x;      // in  (N, D) f32
  ConstTensorView index;  // in  (R) i32
};
void gather_rows(const Context& ctx, const GatherRows& a);

// Rows that S sources sent lie in the order (source, expert, token). The grouped matmuls want
// (expert, source, token): row r of that order is received row row_received[r].
struct RegroupPlan {
  TensorView expert_offsets;  // out (E+1) i32    rows of expert e
  TensorView source_offsets;  // out (E*S+1) i32  rows of expert e from source s, at e * S + s
  TensorView row_received;    // out (R) i32
  TensorView received_row;    // out (R) i32      its inverse
  ConstTensorView counts;     // in  (S, E) i32   rows of each source for each expert; R at most
};
void regroup_plan(const Context& ctx, const RegroupPlan& a);  // needs ctx.scratch

}  // namespace grist::ops
