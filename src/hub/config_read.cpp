// Reading config.json of each family, of transformers 4 or 5, and refusing what grist does not
// compute.
#include <algorithm>
#include <cmath>
#include <set>

#include "config_facts.h"
#include "grist/core/check.h"

namespace grist::hub {

namespace {

// Say nothing about what the model computes from its weights.
const std::set<std::string_view> kHarmless = {
    "_name_or_path",
    "architectures",
    "model_type",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "attention_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "hidden_dropout",
    "output_router_logits",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "torchscript",
    "id2label",
    "label2id",
    "finetuning_task",
    "problem_type",
    "task_specific_params",
    "pretraining_tp",
    "router_aux_loss_coef",
    "aux_loss_alpha",
    "seq_aux",
    "max_window_layers",
    "_attn_implementation_autoset",
    "attn_implementation",
    "bos_token",
    "eos_token",
    "pad_token",
    "unsloth_version",
    "unsloth_fixed",
    "chunk_size_feed_forward",
    "is_encoder_decoder",
    "is_decoder",
    "add_cross_attention",
    "tie_encoder_decoder",
    "cross_attention_hidden_size",
    "tokenizer_class",
    "prefix",
    "experts_implementation",
    "_experts_implementation",
    "max_length",
    "router_jitter_noise",  // of training only, in these families
};

class ConfigReader {
 public:
  ConfigReader(const Json& config, std::string_view where) : json_(config), where_(where) {}

  HubModel read();

 private:
  template <class... Args>
  void problem(std::string_view key, fmt::format_string<Args...> format, Args&&... args) {
    problems_ += fmt::format("{}{}: {}", problems_.empty() ? "" : "; ", key,
                             fmt::format(format, std::forward<Args>(args)...));
  }

  // Null when absent or null.
  const Json* take(std::string_view key) {
    seen_.insert(key);
    const Json* j = json_.find(key);
    return j == nullptr || j->is_null() ? nullptr : j;
  }
  const Json* needed(std::string_view key) {
    const Json* j = take(key);
    if (j == nullptr)
      problem(key, "missing; write it, versions of transformers differ in its default");
    return j;
  }

  std::int64_t whole(const Json* j, std::string_view key, std::int64_t low = 1) {
    constexpr std::int64_t kMost = 1 << 24;
    if (j == nullptr) return low;
    if (j->is_int() && j->as_int() >= low && j->as_int() <= kMost) return j->as_int();
    problem(key, "{}; want a whole number of {} to {}", j->dump(), low, kMost);
    return low;
  }
  std::int64_t whole(std::string_view key, std::int64_t low = 1) {
    return whole(needed(key), key, low);
  }
  double number(std::string_view key, const Json* j, double otherwise) {
    if (j == nullptr) return otherwise;
    if (j->is_number() && std::isfinite(j->as_double())) return j->as_double();
    problem(key, "{}; want a number", j->dump());
    return otherwise;
  }
  bool flag(std::string_view key, const Json* j, bool otherwise) {
    if (j == nullptr) return otherwise;
    if (j->is_bool()) return j->as_bool();
    problem(key, "{}; want true or false", j->dump());
    return otherwise;
  }

  // grist computes one value only; absent means that one.
  void only(std::string_view key, const Json& value, std::string_view why) {
    const Json* j = take(key);
    if (j == nullptr || *j == value) return;
    if (j->is_number() && value.is_number() && j->as_double() == value.as_double()) return;
    problem(key, "{}; grist computes {} only ({})", j->dump(), value.dump(), why);
  }

  void shapes(ModelConfig& c);
  void rope(ModelConfig& c);
  void rope_values(const Json& values, std::string_view key, std::optional<double>& theta);
  void attention();
  void experts(ModelConfig& c);
  void glm_router(ModelConfig& c);
  void dense_layers(ModelConfig& c);
  void granite(ModelConfig& c);
  void widths(ModelConfig& c);
  std::int64_t count_of_experts();
  void unknown_keys();

  const Json& json_;
  std::string_view where_;
  Family family_ = Family::mixtral;
  std::set<std::string_view> seen_;
  std::string problems_;
};

void ConfigReader::shapes(ModelConfig& c) {
  c.vocab_size = whole("vocab_size");
  c.hidden_size = whole("hidden_size");
  c.num_hidden_layers = whole("num_hidden_layers");
  c.num_attention_heads = whole("num_attention_heads");
  c.max_position_embeddings = whole("max_position_embeddings");
  const Json* kv = take("num_key_value_heads");
  if (kv == nullptr && family_ != Family::llama)
    problem("num_key_value_heads", "missing; write it, the families' defaults differ");
  c.num_key_value_heads = kv == nullptr ? c.num_attention_heads : whole(kv, "num_key_value_heads");
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    problem("num_key_value_heads", "{} does not divide num_attention_heads {}",
            c.num_key_value_heads, c.num_attention_heads);
  const Json* head_dim = take("head_dim");
  if (head_dim != nullptr) {
    c.head_dim = whole(head_dim, "head_dim");
  } else if (family_ == Family::qwen3) {
    problem("head_dim", "missing; write it, qwen3's default is 128 whatever hidden_size is");
  } else if (c.hidden_size % c.num_attention_heads != 0) {
    problem("head_dim", "missing, and num_attention_heads {} does not divide hidden_size {}",
            c.num_attention_heads, c.hidden_size);
  }
  if (c.head_dim == 0)
    c.head_dim = std::max<std::int64_t>(c.hidden_size / c.num_attention_heads, 1);
  if (!has_own_head_dim(family_) && c.head_dim * c.num_attention_heads != c.hidden_size)
    problem("head_dim", "{}; {} computes hidden_size / num_attention_heads", c.head_dim,
            word(family_));
  c.rms_norm_eps = number("rms_norm_eps", needed("rms_norm_eps"), 1e-5);
  c.initializer_range = number("initializer_range", take("initializer_range"), 0.02);
  c.tie_word_embeddings = flag("tie_word_embeddings", take("tie_word_embeddings"), false);
}

void ConfigReader::rope_values(const Json& values, std::string_view key,
                               std::optional<double>& theta) {
  if (!values.is_object()) return problem(key, "{}; want an object or null", values.dump());
  for (const auto& [name, value] : values.as_object()) {
    const std::string full = fmt::format("{}.{}", key, name);
    if (value.is_null()) continue;
    if (name == "rope_theta") {
      const double here = number(full, &value, 0);
      if (theta && *theta != here) problem(full, "{}, but rope_theta is {}", here, *theta);
      theta = here;
    } else if (name == "rope_type" || name == "type") {
      if (!(value == Json("default")))
        problem(full, "{}; grist computes \"default\" only", value.dump());
    } else if (name == "partial_rotary_factor") {
      if (!value.is_number() || value.as_double() != 1)
        problem(full, "{}; grist turns the whole head (1.0)", value.dump());
    } else {
      problem(full, "{}; grist has no scaled RoPE", value.dump());
    }
  }
}

void ConfigReader::rope(ModelConfig& c) {
  std::optional<double> theta;
  if (const Json* top = take("rope_theta")) theta = number("rope_theta", top, 0);
  bool whole_head = family_ != Family::glm4_moe;  // whose default is half of it
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const Json* values = take(key);
    if (values == nullptr) continue;
    rope_values(*values, key, theta);
    if (values->find("partial_rotary_factor") != nullptr) whole_head = true;
  }
  if (take("partial_rotary_factor") != nullptr) whole_head = true;
  only("partial_rotary_factor", 1.0, "the whole head is turned");
  if (!whole_head) problem("partial_rotary_factor", "missing: 0.5, and grist turns the whole head");
  if (!theta)
    problem("rope_theta",
            "missing, in rope_parameters too; write it, versions of transformers "
            "differ in its default");
  else if (*theta < 1)
    problem("rope_theta", "{}; want 1 or more", *theta);
  else
    c.rope_theta = *theta;
}

void ConfigReader::attention() {
  only("hidden_act", "silu", "the experts and FFNs are SwiGLU");
  only("attention_bias", false, "its projections have no bias");
  only("mlp_bias", false, "its projections have no bias");
  only("position_embedding_type", "rope", "positions are rotations");
  only("clip_qkv", Json(), "nothing is clipped");
  only("quantization_config", Json(), "weights are fp32, bf16 or f16");
  const bool switched =
      flag("use_sliding_window", take("use_sliding_window"), family_ == Family::mixtral);
  if (const Json* window = take("sliding_window"); window != nullptr && switched)
    problem("sliding_window", "{}; grist attends to the whole sequence", window->dump());
  const Json* types = take("layer_types");
  if (types == nullptr) return;
  if (!types->is_array()) return problem("layer_types", "want a list");
  for (const Json& t : types->as_array())
    if (!(t == Json("full_attention")))
      return problem("layer_types", "{}; grist has full_attention only", t.dump());
}

// transformers 5 writes num_local_experts where 4 wrote num_experts.
std::int64_t ConfigReader::count_of_experts() {
  const char* usual = family_ == Family::glm4_moe ? "n_routed_experts"
                      : family_ == Family::mixtral || family_ == Family::granitemoeshared
                          ? "num_local_experts"
                          : "num_experts";
  const Json* found = nullptr;
  std::string_view found_key = usual;
  for (const std::string_view key : {std::string_view(usual), std::string_view("num_local_experts"),
                                     std::string_view("num_experts")}) {
    const Json* j = take(key);
    if (j == nullptr) continue;
    if (found != nullptr && !(*found == *j))
      problem(key, "{}, but {} is {}", j->dump(), found_key, found->dump());
    if (found == nullptr) found_key = key;
    if (found == nullptr) found = j;
  }
  if (found == nullptr) problem(usual, "missing");
  return whole(found, found_key);
}

void ConfigReader::dense_layers(ModelConfig& c) {
  only("decoder_sparse_step", 1, "dense layers come first");
  const Json* list = take("mlp_only_layers");
  if (list == nullptr) return;
  if (!list->is_array()) return problem("mlp_only_layers", "want a list");
  std::int64_t next = 0;
  for (const Json& layer : list->as_array()) {
    if (!layer.is_int() || layer.as_int() != next++)
      return problem("mlp_only_layers", "{}; in grist dense layers come first, as [0, 1, ...]",
                     list->dump());
  }
  c.moe.first_k_dense_replace = next;
}

void ConfigReader::glm_router(ModelConfig& c) {
  MoeConfig& e = c.moe;
  e.router.score_function = ScoreFunction::sigmoid;
  e.router.norm_topk_prob = flag("norm_topk_prob", needed("norm_topk_prob"), true);
  e.router.routed_scaling_factor =
      number("routed_scaling_factor", needed("routed_scaling_factor"), 1);
  e.first_k_dense_replace = whole("first_k_dense_replace", 0);
  e.shared_expert_intermediate_size = whole("n_shared_experts") * e.moe_intermediate_size;
  e.expert_bias_update_rate = 0.001;  // on; DeepSeek-V3's rate
  c.qk_norm = flag("use_qk_norm", take("use_qk_norm"), false);
  only("n_group", 1, "experts are not grouped");
  only("topk_group", 1, "experts are not grouped");
  only("num_nextn_predict_layers", 0, "no layers that predict further tokens");
  only("num_mtp_layers", 0, "no layers that predict further tokens");
  only("scoring_func", "sigmoid", "of this family");
  only("topk_method", "noaux_tc", "of this family");
}

void ConfigReader::granite(ModelConfig& c) {
  c.moe.shared_expert_intermediate_size = whole("shared_intermediate_size");
  only("embedding_multiplier", 1.0, "no multipliers");
  only("residual_multiplier", 1.0, "no multipliers");
  only("logits_scaling", 1.0, "no multipliers");
  const double scale = number("attention_multiplier", needed("attention_multiplier"), 1);
  if (std::abs(scale * std::sqrt(static_cast<double>(c.head_dim)) - 1) > 1e-6)
    problem("attention_multiplier", "{}; grist computes 1 / sqrt(head_dim {}) = {}", scale,
            c.head_dim, inverse_root(c.head_dim));
}

// intermediate_size is a multiple of the experts' width in grist.
void ConfigReader::widths(ModelConfig& c) {
  MoeConfig& e = c.moe;
  if (calls_expert_width_intermediate(family_)) {
    e.moe_intermediate_size = c.intermediate_size;
  } else if (c.intermediate_size % e.moe_intermediate_size != 0) {
    if (c.first_moe_layer() > 0)
      problem("intermediate_size", "{} is not a multiple of moe_intermediate_size {}, as in grist",
              c.intermediate_size, e.moe_intermediate_size);
    c.intermediate_size = e.moe_intermediate_size;  // nothing is so wide
  }
  e.granularity = c.intermediate_size / e.moe_intermediate_size;
  e.expansion_rate = static_cast<double>(e.num_experts) / static_cast<double>(e.granularity);
  e.flops_multiplier =
      static_cast<double>(e.num_experts_per_tok) / static_cast<double>(e.granularity);
}

void ConfigReader::experts(ModelConfig& c) {
  MoeConfig& e = c.moe;
  e.num_experts = count_of_experts();
  e.num_experts_per_tok = whole("num_experts_per_tok");
  if (e.num_experts_per_tok > e.num_experts)
    problem("num_experts_per_tok", "{} of {} experts", e.num_experts_per_tok, e.num_experts);
  if (!calls_expert_width_intermediate(family_))
    e.moe_intermediate_size = whole("moe_intermediate_size");
  c.qk_norm = family_ == Family::qwen3_moe;
  if (lists_dense_layers(family_)) {
    dense_layers(c);
    e.router.pre_softmax = !flag("norm_topk_prob", needed("norm_topk_prob"), true);
  }
  if (family_ == Family::qwen2_moe) {
    // A dead one can be left out; its tensors tell. So do those of the biases.
    if (const std::int64_t width = whole("shared_expert_intermediate_size");
        width != e.moe_intermediate_size)
      problem("shared_expert_intermediate_size", "{}; grist's shared expert has no gate of its own",
              width);
    take("qkv_bias");
  }
  if (family_ == Family::glm4_moe) glm_router(c);
  if (family_ == Family::granitemoeshared) granite(c);
  widths(c);
  if (const Json* coefficient = take("router_aux_loss_coef");
      coefficient != nullptr && c.num_moe_layers() > 0)
    e.aux_loss_coeff = number("router_aux_loss_coef", coefficient, 0) / aux_factor(c);
}

void ConfigReader::unknown_keys() {
  for (const auto& [key, value] : json_.as_object()) {
    if (seen_.contains(key) || kHarmless.contains(key) || value.is_null()) continue;
    problem(key, "not known to grist, and may change the model; drop it if it does not");
  }
}

HubModel ConfigReader::read() {
  if (!json_.is_object()) fail(ExitCode::bad_data, "{}: not an object", where_);
  const Json* type = json_.find("model_type");
  if (type == nullptr || !type->is_string())
    fail(ExitCode::bad_data, "{}: model_type: missing", where_);
  const std::optional<Family> family = from_word<Family>(type->as_string());
  if (!family)
    fail(ExitCode::bad_data, "{}: model_type: {} is not one that grist computes{}; those are {}",
         where_, type->dump(),
         type->as_string() == "olmoe" ? " (it normalises queries and keys over all heads at once)"
                                      : "",
         words_of(Family{}));
  family_ = *family;
  HubModel out;
  out.family = family_;
  ModelConfig& c = out.model;
  shapes(c);
  c.intermediate_size = whole("intermediate_size");
  rope(c);
  attention();
  if (is_moe(family_))
    experts(c);
  else
    c.qk_norm = family_ == Family::qwen3;
  unknown_keys();
  if (!problems_.empty()) fail(ExitCode::bad_data, "{}: {}", where_, problems_);
  return out;
}

}  // namespace

HubModel model_of(const Json& config, std::string_view where) {
  return ConfigReader(config, where).read();
}

}  // namespace grist::hub
