#pragma once
// How many parameters a model has and what a token costs, from its config alone.
#include <cstdint>

#include "grist/config/config.h"

namespace grist {

// One block. A dense block has no experts, a MoE block no dense_ffn.
struct LayerParameterCount {
  std::int64_t attention = 0;  // q, k, v, o
  std::int64_t norms = 0;      // both RMSNorms, and q_norm, k_norm when there
  std::int64_t dense_ffn = 0;  // gate, up, down
  std::int64_t router = 0;     // (E, D)
  std::int64_t expert = 0;     // one expert
  std::int64_t experts = 0;    // all of them
  std::int64_t shared_expert = 0;
  std::int64_t total = 0;
  std::int64_t active = 0;  // what one token uses: total without the experts not chosen
};

struct ParameterCount {
  LayerParameterCount dense_layer;  // the first num_dense_layers blocks
  LayerParameterCount moe_layer;    // the others
  std::int64_t num_dense_layers = 0;
  std::int64_t num_moe_layers = 0;
  std::int64_t embedding = 0;  // both tables, or the one when tied
  std::int64_t total = 0;
  std::int64_t active = 0;               // a token's, embedding tables included in full
  std::int64_t total_non_embedding = 0;  // N of the scaling laws: total - embedding
  std::int64_t active_non_embedding = 0;
};

// Requires a resolved model with vocab_size set. Selection biases are no parameters.
ParameterCount count_parameters(const ModelConfig& model);

// The total, roughly, without overflow.
double estimate_parameters(const ModelConfig& model);

// Model FLOPs of one token's forward pass, a multiply-add counting two:
//   2 * (matrix parameters a token meets: attention, router, chosen and shared experts or dense
//        FFN, and the output head; not the embedding lookup, not norms)
//   + per layer 2 * 2 * H * Dh * T / 2: scores and weighted values over T/2 keys, as causal
//     attention has them on average in a sequence of T = seq_length without document boundaries.
// A training step costs three times that (the backward pass is two); recomputation is not counted.
double forward_flops_per_token(const ModelConfig& model, std::int64_t seq_length);
double training_flops_per_token(const ModelConfig& model, std::int64_t seq_length);

}  // namespace grist
