#pragma once
// What writing and reading a config.json must agree on.
#include <cmath>

#include "grist/hub/families.h"

namespace grist::hub {

inline bool is_moe(Family f) {
  return f != Family::llama && f != Family::qwen3;
}
// intermediate_size is the width of one expert.
inline bool calls_expert_width_intermediate(Family f) {
  return f == Family::mixtral || f == Family::granitemoeshared;
}
// Dense layers are listed, and every decoder_sparse_step-th of the others has experts.
inline bool lists_dense_layers(Family f) {
  return f == Family::qwen3_moe || f == Family::qwen2_moe;
}
inline bool has_own_head_dim(Family f) {
  return f != Family::qwen2_moe && f != Family::granitemoeshared;
}

inline double inverse_root(std::int64_t head_dim) {
  return 1 / std::sqrt(static_cast<double>(head_dim));
}

// transformers' auxiliary loss takes all layers' tokens for one layer's and does not divide by k:
// with the same coefficient it pushes k / L times as hard as grist's (and Megatron-core's).
inline double aux_factor(const ModelConfig& c) {
  return static_cast<double>(c.num_moe_layers()) / static_cast<double>(c.moe.num_experts_per_tok);
}

}  // namespace grist::hub
