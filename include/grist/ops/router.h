#pragma once
// Routing: logits -> K experts a token, their weights, the balancing losses and their gradients.
// Formulas and sources: docs/routing.md. Logits, weights and sums are fp32 (sums over tokens in
// double).
//
// Gate weights (S = the K chosen experts of a token, best first, ties to the lower expert id):
//   softmax, after (pre_softmax false): choose by l; weights = softmax over S of l (Mixtral; the
//   paper's choice) softmax, before (pre_softmax true): p = softmax over all; weights = p on S
//   (norm: / sum over S) sigmoid: s = sigmoid(l); choose by s + bias; weights = s on S (norm: /
//   (sum over S + 1e-20)) all times routed_scale.
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

constexpr std::int64_t kMaxExperts = 4096;  // rows of logits are held on the stack

enum class ScoreFunction : std::uint8_t { softmax, sigmoid };

struct RouterMode {
  ScoreFunction score = ScoreFunction::softmax;
  bool pre_softmax = false;
  bool norm_topk = false;
  float routed_scale = 1.0F;  // > 0
};

struct RouterForward {
  TensorView ids;             // out (N, K) i32
  TensorView weights;         // out (N, K) f32
  ConstTensorView logits;     // in  (N, E) f32
  ConstTensorView bias = {};  // in  (E) f32: added to the score for the choice only; or empty
  RouterMode mode;
};
void router_forward(const Context& ctx, const RouterForward& a);

// Sums over tokens, for the losses and the log. Tokens fall into S segments of N/S consecutive ones
// (S = 1: a micro-batch; S = B: one a sequence). q is the full softmax of the logits, or for
// sigmoid s / sum over all experts of s.
struct RouterStatistics {
  TensorView counts;     // out (S, E) i64  tokens that chose e, before any drop
  TensorView fractions;  // out (S, E) f32  counts / (K * tokens of the segment): f of the aux loss
  TensorView prob_sums;  // out (S, E) f64  sum of q
  TensorView scalars;  // out (3) f64     sum over tokens of: logsumexp(l)^2, entropy of q in nats,
                       // share of the largest of a token's weights
  ConstTensorView logits;   // in  (N, E) f32
  ConstTensorView ids;      // in  (N, K) i32
  ConstTensorView weights;  // in  (N, K) f32
  RouterMode mode;
};
void router_statistics(const Context& ctx, const RouterStatistics& a);  // needs ctx.scratch

// dlogits of:  <drow_weight, weights>  +  aux_scale * sum_segments E * sum_e f_e P_e  +  z_scale *
// sum_tokens logsumexp^2 with P_e = prob_sums / (N/S) of the token's segment, and f given: the
// gradient never flows through f.
struct RouterBackward {
  TensorView dlogits;                  // out (N, E) f32
  ConstTensorView logits;              // in  (N, E) f32
  ConstTensorView ids;                 // in  (N, K) i32
  ConstTensorView weights;             // in  (N, K) f32
  ConstTensorView drow_weight;         // in  (R) f32  gradient of each kept row's weight
  ConstTensorView slot_row;            // in  (N, K) i32; -1: dropped, gradient 0
  ConstTensorView load_fraction = {};  // in (S, E) f32: f, sums to 1 over e; or empty: no aux loss
  float aux_scale = 0.0F;              // aux_loss_coeff times the weight of one segment's loss
  float z_scale = 0.0F;  // z_loss_coeff / tokens, times the weight of this micro-batch's loss
  RouterMode mode;
};
void router_backward(const Context& ctx, const RouterBackward& a);

}  // namespace grist::ops
