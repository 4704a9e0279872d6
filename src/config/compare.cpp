#include "grist/config/compare.h"

#include <algorithm>
#include <array>

#include "fields.h"
#include "grist/core/check.h"

namespace grist {

namespace {

// initializer_range, balancing and capacity are not here: they may change in continued pretraining.
constexpr auto kArchitecture = std::to_array<std::string_view>({
    "model.num_hidden_layers",
    "model.hidden_size",
    "model.num_attention_heads",
    "model.num_key_value_heads",
    "model.head_dim",
    "model.intermediate_size",
    "model.vocab_size",
    "model.rope_theta",
    "model.rms_norm_eps",
    "model.qk_norm",
    "model.tie_word_embeddings",
    "model.moe.num_experts",
    "model.moe.num_experts_per_tok",
    "model.moe.moe_intermediate_size",
    "model.moe.first_k_dense_replace",
    "model.moe.shared_expert_intermediate_size",
    "model.moe.router.score_function",
    "model.moe.router.pre_softmax",
    "model.moe.router.norm_topk_prob",
    "model.moe.router.routed_scaling_factor",
});

void append(std::vector<KeyValue>& out, const config::Slot& slot) {
  if (auto* const* sources = std::get_if<std::vector<DataSourceConfig>*>(&slot.target);
      sources != nullptr && !(*sources)->empty()) {
    for (std::size_t i = 0; i < (*sources)->size(); ++i)
      for (const config::Slot& item :
           config::slots_of((**sources)[i], slot.key + "." + std::to_string(i)))
        append(out, item);
    return;
  }
  out.push_back({slot.key, config::text_of(slot.target)});
}

const KeyValue* find(const std::vector<KeyValue>& values, std::string_view key) {
  const auto found =
      std::find_if(values.begin(), values.end(), [&](const KeyValue& kv) { return kv.key == key; });
  return found == values.end() ? nullptr : &*found;
}

}  // namespace

std::vector<KeyValue> config_values(const Config& config) {
  Config copy = config;
  std::vector<KeyValue> out;
  for (const config::Slot& slot : config::slots_of(copy)) append(out, slot);
  return out;
}

std::vector<ConfigDifference> config_differences(const Config& before, const Config& after) {
  const std::vector<KeyValue> a = config_values(before), b = config_values(after);
  std::vector<ConfigDifference> out;
  for (const KeyValue& old : a) {
    const KeyValue* now = find(b, old.key);
    if (now == nullptr || now->value != old.value)
      out.push_back(
          {old.key, old.value, now == nullptr ? "" : now->value, is_architecture_key(old.key)});
  }
  for (const KeyValue& now : b)
    if (find(a, now.key) == nullptr)
      out.push_back({now.key, "", now.value, is_architecture_key(now.key)});
  return out;
}

bool is_architecture_key(std::string_view key) {
  return std::find(kArchitecture.begin(), kArchitecture.end(), key) != kArchitecture.end();
}

}  // namespace grist
