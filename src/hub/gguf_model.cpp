// grist's names and numbers as llama.cpp's.
#include "gguf_model.h"

#include "grist/core/check.h"

namespace grist::hub {

namespace {

bool rotates_neighbours(Family family) {
  return family == Family::llama || family == Family::mixtral;
}

class Tensors {
 public:
  Tensors(const ModelConfig& c, GgufType type)
      : c_(c), type_(type), neighbours_(rotates_neighbours(family_of(c))) {}

  std::vector<GgufTensor> make() {
    one("token_embd.weight", "model.embed_tokens.weight", {c_.vocab_size, c_.hidden_size}, type_);
    for (std::int64_t i = 0; i < c_.num_hidden_layers; ++i) layer(i);
    norm("output_norm.weight", "model.norm.weight", c_.hidden_size);
    if (!c_.tie_word_embeddings)
      one("output.weight", "lm_head.weight", {c_.vocab_size, c_.hidden_size}, type_);
    return std::move(out_);
  }

 private:
  void one(const std::string& name, const std::string& ours, const Shape& shape, GgufType type) {
    out_.push_back({.name = name, .shape = shape, .parts = {{ours, shape}}, .type = type});
  }
  void norm(const std::string& name, const std::string& ours, std::int64_t width) {
    one(name, ours, {width}, GgufType::f32);
  }

  void layer(std::int64_t i) {
    const std::string there = fmt::format("blk.{}.", i), ours = fmt::format("model.layers.{}.", i);
    const std::int64_t D = c_.hidden_size, Q = c_.num_attention_heads * c_.head_dim,
                       KV = c_.num_key_value_heads * c_.head_dim;
    norm(there + "attn_norm.weight", ours + "input_layernorm.weight", D);
    one(there + "attn_q.weight", ours + "self_attn.q_proj.weight", {Q, D}, type_);
    if (neighbours_) out_.back().rows.heads = c_.num_attention_heads;
    one(there + "attn_k.weight", ours + "self_attn.k_proj.weight", {KV, D}, type_);
    if (neighbours_) out_.back().rows.heads = c_.num_key_value_heads;
    one(there + "attn_v.weight", ours + "self_attn.v_proj.weight", {KV, D}, type_);
    one(there + "attn_output.weight", ours + "self_attn.o_proj.weight", {D, Q}, type_);
    if (c_.qk_norm) {
      norm(there + "attn_q_norm.weight", ours + "self_attn.q_norm.weight", c_.head_dim);
      norm(there + "attn_k_norm.weight", ours + "self_attn.k_norm.weight", c_.head_dim);
    }
    norm(there + "ffn_norm.weight", ours + "post_attention_layernorm.weight", D);
    if (c_.is_moe_layer(i)) {
      one(there + "ffn_gate_inp.weight", ours + "mlp.gate.weight", {c_.moe.num_experts, D},
          GgufType::f32);
      experts(there, ours);
      return;
    }
    const std::int64_t F = c_.intermediate_size;
    one(there + "ffn_gate.weight", ours + "mlp.gate_proj.weight", {F, D}, type_);
    one(there + "ffn_up.weight", ours + "mlp.up_proj.weight", {F, D}, type_);
    one(there + "ffn_down.weight", ours + "mlp.down_proj.weight", {D, F}, type_);
  }

  void experts(const std::string& there, const std::string& ours) {
    const std::int64_t E = c_.moe.num_experts, F = c_.moe.moe_intermediate_size, D = c_.hidden_size;
    for (const auto& [word, shape] :
         {std::pair{"gate", Shape{F, D}}, {"up", Shape{F, D}}, {"down", Shape{D, F}}}) {
      GgufTensor all{.name = fmt::format("{}ffn_{}_exps.weight", there, word),
                     .shape = {E, shape[0], shape[1]},
                     .parts = {},
                     .type = type_};
      for (std::int64_t e = 0; e < E; ++e)
        all.parts.push_back({fmt::format("{}mlp.experts.{}.{}_proj.weight", ours, e, word), shape});
      out_.push_back(std::move(all));
    }
  }

  const ModelConfig& c_;
  GgufType type_;
  bool neighbours_;
  std::vector<GgufTensor> out_;
};

[[noreturn]] void refuse(std::string_view key, const std::string& why) {
  fail(ExitCode::config, "model.{}: {}; export --to hf takes this model", key, why);
}

}  // namespace

const char* gguf_architecture(const ModelConfig& c) {
  const Family family = family_of(c);
  switch (family) {
    case Family::llama:
    case Family::mixtral: return "llama";
    case Family::qwen3: return "qwen3";
    case Family::qwen3_moe:
      if (c.first_moe_layer() > 0)
        refuse("moe.first_k_dense_replace",
               fmt::format("{}: llama.cpp's qwen3moe has experts in every layer",
                           c.moe.first_k_dense_replace));
      if (c.moe.router.pre_softmax && !c.moe.router.norm_topk_prob)
        refuse(
            "moe.router.norm_topk_prob",
            "false with qk_norm: llama.cpp's qwen3moe always divides the chosen weights by their "
            "sum");
      return "qwen3moe";
    case Family::qwen2_moe:
      refuse("moe.router.pre_softmax",
             "weights that do not sum to 1, or dense layers first, are not in GGUF files here");
    case Family::glm4_moe:
      refuse("moe.router.score_function", "sigmoid routers are not in GGUF files here");
    case Family::granitemoeshared:
      refuse("moe.shared_expert_intermediate_size", "shared experts are not in GGUF files here");
  }
  return "";
}

std::vector<GgufTensor> gguf_tensors(const ModelConfig& model, GgufType type) {
  return Tensors(model, type).make();
}

void add_hyperparameters(GgufHeader& h, const ModelConfig& c, GgufType type) {
  const std::string at = std::string(gguf_architecture(c)) + ".";
  const bool moe = c.num_moe_layers() > 0;
  const auto file_type = [&] {
    switch (type) {
      case GgufType::f32: return 0;
      case GgufType::f16: return 1;
      case GgufType::bf16: return 32;
    }
    return 0;
  };
  h.add_u32("general.file_type", file_type());
  h.add_u32(at + "vocab_size", c.vocab_size);
  h.add_u32(at + "context_length", c.max_position_embeddings);
  h.add_u32(at + "embedding_length", c.hidden_size);
  h.add_u32(at + "block_count", c.num_hidden_layers);
  h.add_u32(at + "feed_forward_length", moe ? c.moe.moe_intermediate_size : c.intermediate_size);
  h.add_u32(at + "attention.head_count", c.num_attention_heads);
  h.add_u32(at + "attention.head_count_kv", c.num_key_value_heads);
  h.add_u32(at + "attention.key_length", c.head_dim);
  h.add_u32(at + "attention.value_length", c.head_dim);
  h.add_f32(at + "attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  h.add_u32(at + "rope.dimension_count", c.head_dim);
  h.add_f32(at + "rope.freq_base", c.rope_theta);
  if (!moe) return;
  constexpr std::int64_t kSoftmax =
      1;  // over all experts; with the sum as divisor: over the chosen
  h.add_u32(at + "expert_count", c.moe.num_experts);
  h.add_u32(at + "expert_used_count", c.moe.num_experts_per_tok);
  h.add_u32(at + "expert_feed_forward_length", c.moe.moe_intermediate_size);
  h.add_u32(at + "expert_gating_func", kSoftmax);
  h.add_bool(at + "expert_weights_norm", true);
}

}  // namespace grist::hub
