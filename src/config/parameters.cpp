#include "grist/config/parameters.h"

namespace grist {

namespace {

LayerParameterCount count_layer(const ModelConfig& m, bool moe) {
  const std::int64_t D = m.hidden_size;
  LayerParameterCount p;
  p.attention = 2 * D * m.head_dim * (m.num_attention_heads + m.num_key_value_heads);
  p.norms = 2 * D + (m.qk_norm ? 2 * m.head_dim : 0);
  if (moe) {
    p.router = m.moe.num_experts * D;
    p.expert = 3 * D * m.moe.moe_intermediate_size;
    p.experts = m.moe.num_experts * p.expert;
    p.shared_expert = 3 * D * m.moe.shared_expert_intermediate_size;
  } else {
    p.dense_ffn = 3 * D * m.intermediate_size;
  }
  p.total = p.attention + p.norms + p.dense_ffn + p.router + p.experts + p.shared_expert;
  p.active = p.total - p.experts + m.moe.num_experts_per_tok * p.expert;
  return p;
}

}  // namespace

ParameterCount count_parameters(const ModelConfig& m) {
  ParameterCount c;
  c.num_dense_layers = m.first_moe_layer();
  c.num_moe_layers = m.num_moe_layers();
  c.dense_layer = count_layer(m, false);
  if (m.moe.num_experts > 0) c.moe_layer = count_layer(m, true);
  c.embedding = (m.tie_word_embeddings ? 1 : 2) * m.vocab_size * m.hidden_size;
  c.total_non_embedding = c.num_dense_layers * c.dense_layer.total +
                          c.num_moe_layers * c.moe_layer.total + m.hidden_size;
  c.active_non_embedding = c.num_dense_layers * c.dense_layer.active +
                           c.num_moe_layers * c.moe_layer.active + m.hidden_size;
  c.total = c.total_non_embedding + c.embedding;
  c.active = c.active_non_embedding + c.embedding;
  return c;
}

double estimate_parameters(const ModelConfig& m) {
  const auto D = static_cast<double>(m.hidden_size);
  const auto ffn =
      static_cast<double>(m.intermediate_size + m.moe.shared_expert_intermediate_size) +
      static_cast<double>(m.moe.num_experts) * static_cast<double>(m.moe.moe_intermediate_size + 1);
  const auto attention = static_cast<double>(m.head_dim) *
                         static_cast<double>(m.num_attention_heads + m.num_key_value_heads);
  return static_cast<double>(m.num_hidden_layers) * D * (3 * ffn + 2 * attention + 4) +
         2 * static_cast<double>(m.vocab_size) * D;
}

double forward_flops_per_token(const ModelConfig& m, std::int64_t seq_length) {
  const ParameterCount c = count_parameters(m);
  const std::int64_t matrices = c.num_dense_layers * (c.dense_layer.active - c.dense_layer.norms) +
                                c.num_moe_layers * (c.moe_layer.active - c.moe_layer.norms) +
                                m.vocab_size * m.hidden_size;
  const double attention = 2.0 * static_cast<double>(m.num_hidden_layers) *
                           static_cast<double>(m.num_attention_heads) *
                           static_cast<double>(m.head_dim) * static_cast<double>(seq_length);
  return 2.0 * static_cast<double>(matrices) + attention;
}

double training_flops_per_token(const ModelConfig& m, std::int64_t seq_length) {
  return 3.0 * forward_flops_per_token(m, seq_length);
}

}  // namespace grist
