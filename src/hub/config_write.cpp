// Writing config.json of each family. transformers 4 reads rope_theta and num_experts, 5 writes
// rope_parameters and, for some families, num_local_experts: all are written.
#include <algorithm>

#include "config_facts.h"
#include "grist/core/check.h"

namespace grist::hub {

namespace {

constexpr const char* kTransformersVersion = "4.57.0";  // whose keys these are; 5 reads them too

double six_digits(double x) {
  return std::stod(fmt::format("{:.6g}", x));
}

}  // namespace

SpecialTokens special_tokens_of(const Json& object) {
  const auto id = [&](const char* key) {
    const Json* j = object.find(key);
    if (j == nullptr) return Json();
    const auto is_id = [](const Json& x) { return x.is_int() && x.as_int() >= 0; };
    const bool several = j->is_array() && !j->as_array().empty() &&
                         std::all_of(j->as_array().begin(), j->as_array().end(), is_id);
    return several || is_id(*j) ? *j : Json();
  };
  return {.bos = id(kBosKey), .eos = id(kEosKey), .pad = id(kPadKey)};
}

void set_special_tokens(Json& j, const SpecialTokens& tokens) {
  j.set(kBosKey, tokens.bos);
  j.set(kEosKey, tokens.eos);
  j.set(kPadKey, tokens.pad);
}

namespace {

void set_rope(Json& j, Family family, const ModelConfig& c) {
  Json rope = Json::object();
  rope.set("rope_type", "default");
  rope.set("rope_theta", c.rope_theta);
  if (family == Family::glm4_moe) {
    rope.set("partial_rotary_factor", 1.0);
    j.set("partial_rotary_factor", 1.0);
  }
  j.set("rope_theta", c.rope_theta);
  j.set("rope_scaling", Json());
  j.set("rope_parameters", std::move(rope));
}

void set_experts(Json& j, Family family, const ModelConfig& c) {
  const MoeConfig& e = c.moe;
  const bool normalised = !e.router.pre_softmax || e.router.norm_topk_prob;
  if (family == Family::glm4_moe) {
    j.set("n_routed_experts", e.num_experts);
    j.set("n_shared_experts",
          std::max<std::int64_t>(e.shared_expert_intermediate_size / e.moe_intermediate_size, 1));
    j.set("n_group", 1);
    j.set("topk_group", 1);
    j.set("norm_topk_prob", e.router.norm_topk_prob);
    j.set("routed_scaling_factor", e.router.routed_scaling_factor);
    j.set("first_k_dense_replace", e.first_k_dense_replace);
    j.set("use_qk_norm", c.qk_norm);
    j.set("num_nextn_predict_layers", 0);
  } else {
    if (family != Family::mixtral && family != Family::granitemoeshared)
      j.set("num_experts", e.num_experts);
    if (family != Family::qwen2_moe) j.set("num_local_experts", e.num_experts);
    j.set("router_aux_loss_coef", six_digits(e.aux_loss_coeff * aux_factor(c)));
    j.set("output_router_logits", false);
  }
  if (!calls_expert_width_intermediate(family))
    j.set("moe_intermediate_size", e.moe_intermediate_size);
  j.set("num_experts_per_tok", e.num_experts_per_tok);
  if (family == Family::mixtral) j.set("router_jitter_noise", 0.0);
  if (lists_dense_layers(family)) {
    Json dense = Json::array();
    for (std::int64_t i = 0; i < c.first_moe_layer(); ++i) dense.push_back(i);
    j.set("norm_topk_prob", normalised);
    j.set("decoder_sparse_step", 1);
    j.set("mlp_only_layers", std::move(dense));
  }
  if (family == Family::qwen2_moe) {
    j.set("qkv_bias", true);
    j.set("shared_expert_intermediate_size", e.moe_intermediate_size);
  }
  if (family == Family::granitemoeshared) {
    j.set("shared_intermediate_size", e.shared_expert_intermediate_size);
    j.set("embedding_multiplier", 1.0);
    j.set("residual_multiplier", 1.0);
    j.set("logits_scaling", 1.0);
    j.set("attention_multiplier", inverse_root(c.head_dim));
  }
}

}  // namespace

Json config_json(Family family, const ModelConfig& c, const SpecialTokens& tokens, DType dtype) {
  Json j = Json::object();
  j.set("architectures", Json::Array{Json(architecture_of(family))});
  j.set("model_type", word(family));
  j.set("vocab_size", c.vocab_size);
  j.set("hidden_size", c.hidden_size);
  j.set("intermediate_size", calls_expert_width_intermediate(family) ? c.moe.moe_intermediate_size
                                                                     : c.intermediate_size);
  j.set("num_hidden_layers", c.num_hidden_layers);
  j.set("num_attention_heads", c.num_attention_heads);
  j.set("num_key_value_heads", c.num_key_value_heads);
  if (has_own_head_dim(family)) j.set("head_dim", c.head_dim);
  j.set("hidden_act", "silu");
  j.set("max_position_embeddings", c.max_position_embeddings);
  j.set("rms_norm_eps", c.rms_norm_eps);
  set_rope(j, family, c);
  if (family == Family::llama) j.set("mlp_bias", false);
  if (family != Family::mixtral && family != Family::qwen2_moe) j.set("attention_bias", false);
  j.set("attention_dropout", 0.0);
  if (family == Family::mixtral || family == Family::qwen3 || lists_dense_layers(family))
    j.set("sliding_window", Json());
  if (family == Family::qwen3 || lists_dense_layers(family)) j.set("use_sliding_window", false);
  if (is_moe(family)) set_experts(j, family, c);
  j.set("initializer_range", c.initializer_range);
  j.set("tie_word_embeddings", c.tie_word_embeddings);
  j.set("use_cache", true);
  set_special_tokens(j, tokens);
  j.set("torch_dtype", dtype == DType::bf16 ? "bfloat16" : "float32");
  j.set("transformers_version", kTransformersVersion);
  return j;
}

Json generation_config_json(const SpecialTokens& tokens) {
  Json j = Json::object();
  set_special_tokens(j, tokens);
  j.set("do_sample", false);
  j.set("transformers_version", kTransformersVersion);
  return j;
}

}  // namespace grist::hub
