#include "spelling.h"

#include <algorithm>
#include <array>
#include <set>

#include "grist/core/check.h"

namespace grist::config {

namespace {

constexpr std::string_view kAuxNote =
    "read as model.moe.aux_loss_coeff: Hugging Face does not divide the load by k and takes the "
    "mean "
    "over the L layers, so that the same number is k / L times as strong there";
constexpr std::string_view kDropNote =
    "Megatron's position policy promises no order; here it keeps the first tokens";

// Sources: config.json of Mixtral, Qwen3-MoE, OLMoE, DeepSeek-V3 (Hugging Face transformers) and
// the arguments of Megatron-LM. Only where the meaning is the same.
constexpr auto kAliases = std::to_array<Alias>({
    // Hugging Face, flat in the model block
    {"model.num_local_experts", "model.moe.num_experts", ""},
    {"model.num_experts", "model.moe.num_experts", ""},
    {"model.n_routed_experts", "model.moe.num_experts", ""},
    {"model.num_experts_per_tok", "model.moe.num_experts_per_tok", ""},
    {"model.moe_intermediate_size", "model.moe.moe_intermediate_size", ""},
    {"model.first_k_dense_replace", "model.moe.first_k_dense_replace", ""},
    {"model.router_aux_loss_coef", "model.moe.aux_loss_coeff", kAuxNote},
    {"model.router_z_loss_coef", "model.moe.z_loss_coeff", ""},
    {"model.scoring_func", "model.moe.router.score_function", ""},
    {"model.norm_topk_prob", "model.moe.router.norm_topk_prob", ""},
    {"model.routed_scaling_factor", "model.moe.router.routed_scaling_factor", ""},
    {"model.use_qk_norm", "model.qk_norm", ""},
    {"model.rope_parameters.rope_theta", "model.rope_theta", ""},
    // Hugging Face, in the moe block
    {"model.moe.num_local_experts", "model.moe.num_experts", ""},
    {"model.moe.n_routed_experts", "model.moe.num_experts", ""},
    {"model.moe.router_aux_loss_coef", "model.moe.aux_loss_coeff", kAuxNote},
    {"model.moe.router_z_loss_coef", "model.moe.z_loss_coeff", ""},
    {"model.moe.scoring_func", "model.moe.router.score_function", ""},
    {"model.moe.norm_topk_prob", "model.moe.router.norm_topk_prob", ""},
    {"model.moe.routed_scaling_factor", "model.moe.router.routed_scaling_factor", ""},
    {"model.moe.router.scoring_func", "model.moe.router.score_function", ""},
    // Megatron-LM
    {"model.num_layers", "model.num_hidden_layers", ""},
    {"model.ffn_hidden_size", "model.intermediate_size", ""},
    {"model.num_query_groups", "model.num_key_value_heads", ""},
    {"model.kv_channels", "model.head_dim", ""},
    {"model.rotary_base", "model.rope_theta", ""},
    {"model.norm_epsilon", "model.rms_norm_eps", ""},
    {"model.layernorm_epsilon", "model.rms_norm_eps", ""},
    {"model.qk_layernorm", "model.qk_norm", ""},
    {"model.num_moe_experts", "model.moe.num_experts", ""},
    {"model.init_method_std", "model.initializer_range", ""},
    {"model.seq_length", "data.seq_length", ""},
    {"train.seq_length", "data.seq_length", ""},
    {"model.moe_ffn_hidden_size", "model.moe.moe_intermediate_size", ""},
    {"model.moe_router_topk", "model.moe.num_experts_per_tok", ""},
    {"model.moe_router_score_function", "model.moe.router.score_function", ""},
    {"model.moe_router_pre_softmax", "model.moe.router.pre_softmax", ""},
    {"model.moe_router_dtype", "model.moe.router.dtype", ""},
    {"model.moe_router_topk_scaling_factor", "model.moe.router.routed_scaling_factor", ""},
    {"model.moe_router_bias_update_rate", "model.moe.expert_bias_update_rate", ""},
    {"model.moe_aux_loss_coeff", "model.moe.aux_loss_coeff", ""},
    {"model.moe_z_loss_coeff", "model.moe.z_loss_coeff", ""},
    {"model.moe_expert_capacity_factor", "model.moe.capacity_factor", ""},
    {"model.moe_token_drop_policy", "model.moe.token_drop_policy", kDropNote},
    {"model.moe_shared_expert_intermediate_size", "model.moe.shared_expert_intermediate_size", ""},
    {"model.moe.moe_ffn_hidden_size", "model.moe.moe_intermediate_size", ""},
    {"model.moe.moe_router_topk", "model.moe.num_experts_per_tok", ""},
    {"model.moe.moe_aux_loss_coeff", "model.moe.aux_loss_coeff", ""},
    {"model.moe.moe_z_loss_coeff", "model.moe.z_loss_coeff", ""},
    {"model.moe.moe_expert_capacity_factor", "model.moe.capacity_factor", ""},
    {"model.moe.moe_token_drop_policy", "model.moe.token_drop_policy", kDropNote},
});

constexpr std::string_view kGroups = "group-limited routing is not supported for now";
constexpr std::string_view kDenseInFront =
    "write model.moe.first_k_dense_replace, the number of dense layers in front";
constexpr std::string_view kShared =
    "write model.moe.shared_expert_intermediate_size = n_shared_experts * moe_intermediate_size";
constexpr std::string_view kFullAttention = "attention is full and causal";
constexpr std::string_view kNoBias = "there are no biases";
constexpr std::string_view kNoDropout = "there is no dropout";
constexpr std::string_view kPlainRope = "RoPE is plain";
constexpr std::string_view kNoExtraTokens = "only the next token is predicted";

constexpr auto kFixed = std::to_array<FixedKey>({
    {"model.hidden_act", "silu", "the FFN is SwiGLU"},
    {"model.swiglu", "true", "the FFN is SwiGLU"},
    {"model.gated_linear_unit", "true", "the FFN is SwiGLU"},
    {"model.normalization", "RMSNorm", "norms are RMSNorm"},
    {"model.attention_bias", "false", kNoBias},
    {"model.qkv_bias", "false", kNoBias},
    {"model.mlp_bias", "false", kNoBias},
    {"model.add_bias_linear", "false", kNoBias},
    {"model.add_qkv_bias", "false", kNoBias},
    {"model.attention_dropout", "0.0", kNoDropout},
    {"model.hidden_dropout", "0.0", kNoDropout},
    {"model.sliding_window", "null, 0", kFullAttention},
    {"model.window_size", "null", kFullAttention},
    {"model.use_sliding_window", "false", kFullAttention},
    {"model.position_embedding_type", "rope", "positions are RoPE's"},
    {"model.rope_scaling", "null", kPlainRope},
    {"model.rope_parameters.rope_type", "default", kPlainRope},
    {"model.rope_parameters.partial_rotary_factor", "1.0", kPlainRope},
    {"model.partial_rotary_factor", "1.0", kPlainRope},
    {"model.rotary_percent", "1.0", kPlainRope},
    {"model.rotary_interleaved", "false", kPlainRope},
    {"model.multi_latent_attention", "false", "queries and keys are not compressed"},
    {"model.clip_qkv", "null", "queries, keys and values are not clipped"},
    {"model.pretraining_tp", "1", "ranks are set in the block parallel"},
    {"model.router_jitter_noise", "0.0", "the router has no noise"},
    {"model.moe_input_jitter_eps", "null", "the router has no noise"},
    {"model.decoder_sparse_step", "1", "every layer after the first dense ones has experts"},
    {"model.moe_layer_freq", "1", kDenseInFront},
    {"model.mlp_only_layers", "[], null", kDenseInFront},
    {"model.n_group", "1, null", kGroups},
    {"model.topk_group", "1, null", kGroups},
    {"model.topk_method", "greedy, null", kGroups},
    {"model.moe_router_num_groups", "null", kGroups},
    {"model.moe_router_group_topk", "null", kGroups},
    {"model.n_shared_experts", "0, null", kShared},
    {"model.num_nextn_predict_layers", "0, null", kNoExtraTokens},
    {"model.mtp_num_layers", "0, null", kNoExtraTokens},
});

// Under every spelling of the key.
struct NullValue {
  std::string_view key;
  std::string_view means;
};
constexpr auto kNull = std::to_array<NullValue>({
    {"model.num_key_value_heads", "0"},
    {"model.head_dim", "0"},
    {"model.vocab_size", "0"},
    {"model.moe.num_experts", "0"},
    {"model.moe.num_experts_per_tok", "0"},
    {"model.moe.moe_intermediate_size", "0"},
    {"model.moe.shared_expert_intermediate_size", "0"},
    {"model.moe.router.routed_scaling_factor", "1.0"},
    {"model.moe.z_loss_coeff", "0.0"},
});

constexpr auto kRefused = std::to_array<RefusedKey>({
    {"untie_embeddings_and_output_weights",
     "write model.tie_word_embeddings, which says the opposite"},
    {"output_router_logits",
     "the auxiliary loss depends on model.moe.aux_loss_coeff alone (in Hugging Face it is added "
     "only when this is true); remove the key"},
    {"model_type",
     "a family's name sets nothing here; remove it and write what it implies, such as "
     "model.qk_norm: true for qwen3_moe"},
    {"<<", "merge keys are not supported; write the keys out"},
});

std::string_view last_part(std::string_view path) {
  return path.substr(path.rfind('.') + 1);
}
std::string_view block_of(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

// Insertions, deletions, replacements and swaps of neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(above);
    above.swap(row);
  }
  return above[b.size()];
}

struct Nearest {
  std::string path;
  std::size_t distance = static_cast<std::size_t>(-1);
};

Nearest nearest_in(std::string_view name, std::string_view block,
                   const std::vector<std::string>& candidates, bool same_block) {
  Nearest best;
  for (const std::string& path : candidates) {
    if ((block_of(path) == block) != same_block) continue;
    const std::size_t d = edit_distance(name, last_part(path));
    if (d < best.distance) best = {path, d};
  }
  return best;
}

// Every name that could have been meant: keys, blocks, aliases.
std::vector<std::string> candidates_from(const std::vector<std::string>& keys) {
  std::set<std::string> blocks;
  for (const std::string& key : keys)
    for (auto block = block_of(key); !block.empty(); block = block_of(block)) blocks.emplace(block);
  std::vector<std::string> all = keys;
  all.insert(all.end(), blocks.begin(), blocks.end());
  for (const Alias& alias : kAliases) all.emplace_back(alias.spelled);
  return all;
}

}  // namespace

const Alias* find_alias(std::string_view spelled) {
  const auto* found = std::find_if(kAliases.begin(), kAliases.end(),
                                   [&](const Alias& a) { return a.spelled == spelled; });
  return found == kAliases.end() ? nullptr : found;
}

const FixedKey* find_fixed(std::string_view spelled) {
  constexpr std::string_view kMoe = "model.moe.";
  const bool in_moe = spelled.starts_with(kMoe);
  const std::string flat = in_moe ? fmt::format("model.{}", spelled.substr(kMoe.size())) : "";
  const auto* found = std::find_if(kFixed.begin(), kFixed.end(), [&](const FixedKey& f) {
    return f.spelled == spelled || (in_moe && f.spelled == flat);
  });
  return found == kFixed.end() ? nullptr : found;
}

const RefusedKey* find_refused(std::string_view spelled) {
  static constexpr RefusedKey kGatedShared{
      "shared_expert_intermediate_size",
      "in Hugging Face's Qwen2-MoE this shared expert is gated by a sigmoid, ours is not; write it "
      "under model.moe if that is meant"};
  if (spelled == "model.shared_expert_intermediate_size") return &kGatedShared;
  const std::string_view name = last_part(spelled);
  const auto* found = std::find_if(kRefused.begin(), kRefused.end(),
                                   [&](const RefusedKey& r) { return r.name == name; });
  return found == kRefused.end() ? nullptr : found;
}

std::string_view meaning_of_null(std::string_view key) {
  const auto* found =
      std::find_if(kNull.begin(), kNull.end(), [&](const NullValue& n) { return n.key == key; });
  return found == kNull.end() ? std::string_view() : found->means;
}

bool is_alias_block(std::string_view path) {
  return path == "model.rope_parameters";
}

std::string unknown_key(std::string_view spelled, const std::vector<std::string>& keys) {
  constexpr std::size_t kLongestName = 64;
  const std::string_view name = last_part(spelled), block = block_of(spelled);
  if (name.size() > kLongestName) return "unknown key";
  if (const std::string_view meant = hinted_key(spelled); !meant.empty() && meant != spelled)
    return fmt::format("unknown key; did you mean {}?", meant);
  const std::vector<std::string> candidates = candidates_from(keys);
  const std::size_t tolerance = std::max<std::size_t>(1, name.size() / 3);

  const Nearest here = nearest_in(name, block, candidates, true);
  const Nearest elsewhere = nearest_in(name, block, candidates, false);
  if (elsewhere.distance == 0 && here.distance > 1)
    return fmt::format(
        "unknown key here; it belongs to {}: write {}",
        block_of(elsewhere.path).empty() ? "the top level" : block_of(elsewhere.path),
        elsewhere.path);
  if (here.distance <= tolerance)
    return fmt::format("unknown key; did you mean {}?", last_part(here.path));
  if (elsewhere.distance <= tolerance)
    return fmt::format("unknown key; did you mean {}?", elsewhere.path);
  return "unknown key; docs/configuration.md lists all";
}

}  // namespace grist::config
