// Which family a model is, and the names and shapes of its tensors there.
#include "grist/hub/families.h"

#include "grist/core/check.h"

namespace grist::hub {

const char* architecture_of(Family family) {
  switch (family) {
    case Family::llama: return "LlamaForCausalLM";
    case Family::qwen3: return "Qwen3ForCausalLM";
    case Family::mixtral: return "MixtralForCausalLM";
    case Family::qwen3_moe: return "Qwen3MoeForCausalLM";
    case Family::qwen2_moe: return "Qwen2MoeForCausalLM";
    case Family::glm4_moe: return "Glm4MoeForCausalLM";
    case Family::granitemoeshared: return "GraniteMoeSharedForCausalLM";
  }
  return "?";
}

std::string router_bias_name(std::int64_t layer) {
  return fmt::format("model.layers.{}.mlp.gate.e_score_correction_bias", layer);
}

// ---- choice ----------------------------------------------------------------------------------

namespace {

[[noreturn]] void refuse(std::string_view key, const std::string& why) {
  fail(ExitCode::config, "model.{}: {}; no family that transformers has computes this model", key,
       why);
}

// Families whose head width is hidden_size / num_attention_heads.
void need_plain_heads(const ModelConfig& c, Family family) {
  if (c.head_dim * c.num_attention_heads == c.hidden_size) return;
  refuse("head_dim",
         fmt::format("{} is not hidden_size {} / num_attention_heads {}, which {} needs",
                     c.head_dim, c.hidden_size, c.num_attention_heads, word(family)));
}

Family sigmoid_family(const ModelConfig& c) {
  const std::int64_t shared = c.moe.shared_expert_intermediate_size;
  if (shared % c.moe.moe_intermediate_size != 0)
    refuse("moe.shared_expert_intermediate_size",
           fmt::format("{} is not a multiple of moe_intermediate_size {}, as glm4_moe needs",
                       shared, c.moe.moe_intermediate_size));
  if (c.moe.num_experts < 2) refuse("moe.num_experts", "glm4_moe needs 2 or more");
  return Family::glm4_moe;
}

Family shared_family(const ModelConfig& c, bool over_all) {
  const char* with =
      "moe.shared_expert_intermediate_size: an ungated shared expert beside a "
      "softmax router is granitemoeshared's, which has ";
  if (over_all)
    refuse("moe.router.pre_softmax", fmt::format("true with {}softmax after top-k", with));
  if (c.qk_norm) refuse("qk_norm", fmt::format("true with {}none", with));
  if (c.first_moe_layer() > 0)
    refuse("moe.first_k_dense_replace",
           fmt::format("{} with {}no dense layers", c.moe.first_k_dense_replace, with));
  need_plain_heads(c, Family::granitemoeshared);
  return Family::granitemoeshared;
}

}  // namespace

Family family_of(const ModelConfig& c) {
  if (c.num_moe_layers() == 0) {
    if (c.qk_norm) return Family::qwen3;
    if (c.hidden_size % c.num_attention_heads != 0)
      refuse("num_attention_heads", fmt::format("{} does not divide hidden_size {}, as llama needs",
                                                c.num_attention_heads, c.hidden_size));
    return Family::llama;
  }
  const RouterConfig& router = c.moe.router;
  if (router.score_function == ScoreFunction::sigmoid) return sigmoid_family(c);
  if (c.moe.expert_bias_update_rate > 0)
    refuse("moe.expert_bias_update_rate", "a selection bias beside a softmax router");
  if (router.routed_scaling_factor != 1)
    refuse("moe.router.routed_scaling_factor",
           fmt::format("{} beside a softmax router", router.routed_scaling_factor));
  const bool over_all = router.pre_softmax && !router.norm_topk_prob;
  if (c.moe.shared_expert_intermediate_size > 0) return shared_family(c, over_all);
  if (c.qk_norm) return Family::qwen3_moe;
  if (!over_all && c.first_moe_layer() == 0) return Family::mixtral;
  need_plain_heads(c, Family::qwen2_moe);
  return Family::qwen2_moe;
}

// ---- tensors ---------------------------------------------------------------------------------

namespace {

// Where a family puts what, below "model.layers.N.".
struct Words {
  const char* moe = "mlp.";
  const char* router = "gate.weight";
  const char *gate = "gate_proj.weight", *up = "up_proj.weight", *down = "down_proj.weight";
  bool stacked = false;  // all experts of a layer are one tensor
  const char *stacked_gate_up = "experts.gate_up_proj", *stacked_down = "experts.down_proj";
};

Words words_of_experts(Family family, ExpertLayout layout) {
  const bool fused = layout == ExpertLayout::fused;
  if (family == Family::granitemoeshared && fused)
    return {.moe = "block_sparse_moe.", .router = "router.weight", .stacked = true};
  if (family == Family::granitemoeshared)
    return {.moe = "block_sparse_moe.",
            .router = "router.layer.weight",
            .stacked = true,
            .stacked_gate_up = "input_linear.weight",
            .stacked_down = "output_linear.weight"};
  if (family == Family::mixtral && !fused)
    return {
        .moe = "block_sparse_moe.", .gate = "w1.weight", .up = "w3.weight", .down = "w2.weight"};
  return {.stacked = fused};
}

class TensorList {
 public:
  TensorList(Family family, const ModelConfig& c, ExpertLayout layout)
      : family_(family), c_(c), words_(words_of_experts(family, layout)) {}

  std::vector<HubTensor> make() {
    same("model.embed_tokens.weight", {c_.vocab_size, c_.hidden_size});
    for (std::int64_t i = 0; i < c_.num_hidden_layers; ++i) layer(i);
    same("model.norm.weight", {c_.hidden_size});
    if (!c_.tie_word_embeddings) same("lm_head.weight", {c_.vocab_size, c_.hidden_size});
    return std::move(out_);
  }

 private:
  // Under the name that it has in grist.
  void same(const std::string& name, const Shape& shape) { renamed(name, name, shape); }
  void renamed(const std::string& hub, const std::string& ours, const Shape& shape) {
    out_.push_back({.name = hub, .shape = shape, .parts = {{ours, shape}}});
  }
  void constant(const std::string& name, const Shape& shape, float fill, Constant kind) {
    out_.push_back({.name = name, .shape = shape, .parts = {}, .fill = fill, .constant = kind});
  }

  void layer(std::int64_t index) {
    const std::string at = fmt::format("model.layers.{}.", index);
    const std::int64_t D = c_.hidden_size, Q = c_.num_attention_heads * c_.head_dim,
                       KV = c_.num_key_value_heads * c_.head_dim;
    same(at + "input_layernorm.weight", {D});
    same(at + "self_attn.q_proj.weight", {Q, D});
    same(at + "self_attn.k_proj.weight", {KV, D});
    same(at + "self_attn.v_proj.weight", {KV, D});
    if (family_ == Family::qwen2_moe) {
      for (const auto& [name, width] : {std::pair{"q", Q}, {"k", KV}, {"v", KV}})
        constant(at + fmt::format("self_attn.{}_proj.bias", name), {width}, 0, Constant::exact);
    }
    if (c_.qk_norm) {
      same(at + "self_attn.q_norm.weight", {c_.head_dim});
      same(at + "self_attn.k_norm.weight", {c_.head_dim});
    }
    same(at + "self_attn.o_proj.weight", {D, Q});
    same(at + "post_attention_layernorm.weight", {D});
    if (c_.is_moe_layer(index))
      experts(at, index);
    else
      ffn(at + "mlp.", at + "mlp.", c_.intermediate_size);
  }

  void ffn(const std::string& hub, const std::string& ours, std::int64_t width) {
    const std::int64_t D = c_.hidden_size;
    renamed(hub + "gate_proj.weight", ours + "gate_proj.weight", {width, D});
    renamed(hub + "up_proj.weight", ours + "up_proj.weight", {width, D});
    renamed(hub + "down_proj.weight", ours + "down_proj.weight", {D, width});
  }

  void experts(const std::string& at, std::int64_t index) {
    const std::int64_t E = c_.moe.num_experts;
    const std::string hub = at + words_.moe, ours = at + "mlp.";
    renamed(hub + words_.router, ours + "gate.weight", {E, c_.hidden_size});
    if (family_ == Family::glm4_moe) {
      out_.back().fp32 = true;
      const std::string bias = router_bias_name(index);
      renamed(bias, bias, {E});
      out_.back().fp32 = true;
    }
    if (words_.stacked)
      stacked_experts(hub, ours);
    else
      single_experts(hub, ours);
    shared_expert(at);
  }

  std::string expert(const std::string& at, std::int64_t e) const {
    return fmt::format("{}experts.{}.", at, e);
  }

  void single_experts(const std::string& hub, const std::string& ours) {
    const std::int64_t F = c_.moe.moe_intermediate_size, D = c_.hidden_size;
    for (std::int64_t e = 0; e < c_.moe.num_experts; ++e) {
      const std::string there = expert(hub, e), here = expert(ours, e);
      renamed(there + words_.gate, here + "gate_proj.weight", {F, D});
      renamed(there + words_.up, here + "up_proj.weight", {F, D});
      renamed(there + words_.down, here + "down_proj.weight", {D, F});
    }
  }

  void stacked_experts(const std::string& hub, const std::string& ours) {
    const std::int64_t E = c_.moe.num_experts, F = c_.moe.moe_intermediate_size, D = c_.hidden_size;
    HubTensor up{.name = hub + words_.stacked_gate_up, .shape = {E, 2 * F, D}, .parts = {}};
    HubTensor down{.name = hub + words_.stacked_down, .shape = {E, D, F}, .parts = {}};
    for (std::int64_t e = 0; e < E; ++e) {
      const std::string here = expert(ours, e);
      up.parts.push_back({here + "gate_proj.weight", {F, D}});
      up.parts.push_back({here + "up_proj.weight", {F, D}});
      down.parts.push_back({here + "down_proj.weight", {D, F}});
    }
    out_.push_back(std::move(up));
    out_.push_back(std::move(down));
  }

  // A family that always has one gets one that adds zero.
  void shared_expert(const std::string& at) {
    const std::int64_t D = c_.hidden_size, F = c_.moe.moe_intermediate_size,
                       S = c_.moe.shared_expert_intermediate_size;
    const std::string ours = at + "mlp.shared_experts.";
    if (family_ == Family::qwen2_moe) {
      dead_expert(at + "mlp.shared_expert.", F);
      // Not zero: llama.cpp divides by this product.
      constant(at + "mlp.shared_expert_gate.weight", {1, D}, 1, Constant::any);
    } else if (family_ == Family::granitemoeshared) {
      const std::string hub = at + "shared_mlp.";
      out_.push_back(
          {.name = hub + "input_linear.weight",
           .shape = {2 * S, D},
           .parts = {{ours + "gate_proj.weight", {S, D}}, {ours + "up_proj.weight", {S, D}}}});
      renamed(hub + "output_linear.weight", ours + "down_proj.weight", {D, S});
    } else if (S > 0) {
      ffn(ours, ours, S);
    } else if (family_ == Family::glm4_moe) {
      dead_expert(ours, F);
    }
  }

  void dead_expert(const std::string& at, std::int64_t width) {
    const std::int64_t D = c_.hidden_size;
    constant(at + "gate_proj.weight", {width, D}, 0, Constant::any);
    constant(at + "up_proj.weight", {width, D}, 0, Constant::any);
    constant(at + "down_proj.weight", {D, width}, 0, Constant::exact);
  }

  Family family_;
  const ModelConfig& c_;
  Words words_;
  std::vector<HubTensor> out_;
};

}  // namespace

std::vector<HubTensor> hub_tensors(Family family, const ModelConfig& model, ExpertLayout layout) {
  return TensorList(family, model, layout).make();
}

}  // namespace grist::hub
