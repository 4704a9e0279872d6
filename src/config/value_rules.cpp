#include "value_rules.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "grist/core/check.h"
#include "grist/core/json.h"

namespace grist::config {

namespace {

struct Range {
  std::string_view key;
  double low;
  double high;
  bool open_low = false;  // low itself is not allowed
  bool open_high = false;
};

constexpr double kBillion = 1e9;
constexpr double kMany = 9e15;  // exact in a double

// Upper ends are far beyond use; they stop products from overflowing.
constexpr auto kRanges = std::to_array<Range>({
    {"seed", 0, kMany},
    {"threads", 0, 4096},
    {"model.num_hidden_layers", 1, 1000},
    {"model.hidden_size", 1, 1 << 20},
    {"model.num_attention_heads", 1, 1 << 16},
    {"model.num_key_value_heads", 0, 1 << 16},
    {"model.head_dim", 0, 1 << 14},
    {"model.intermediate_size", 1, 1 << 22},
    {"model.vocab_size", 0, 1 << 24},
    {"model.max_position_embeddings", 0, 1 << 24},
    {"model.rope_theta", 1, 1e12},
    {"model.rms_norm_eps", 0, 0.1, true},
    {"model.initializer_range", 0, 10, true},
    {"model.lm_head_z_loss_coeff", 0, 1e6},
    {"model.moe.expansion_rate", 0, 1 << 16},
    {"model.moe.granularity", 0, 1 << 16},
    {"model.moe.flops_multiplier", 0, 1 << 16},
    {"model.moe.num_experts", 0, 4096},
    {"model.moe.num_experts_per_tok", 0, 4096},
    {"model.moe.moe_intermediate_size", 0, 1 << 22},
    {"model.moe.first_k_dense_replace", 0, 1000},
    {"model.moe.shared_expert_intermediate_size", 0, 1 << 22},
    {"model.moe.router.routed_scaling_factor", 0, 1e6, true},
    {"model.moe.aux_loss_coeff", 0, 1e6},
    {"model.moe.z_loss_coeff", 0, 1e6},
    {"model.moe.expert_bias_update_rate", 0, 1e3},
    {"model.moe.capacity_factor", 0, 1e6, true},
    {"data.train.*.weight", 0, kMany, true},
    {"data.validation.*.weight", 0, kMany, true},
    {"data.seq_length", 1, 1 << 24},
    {"train.micro_batch_size", 1, 1 << 20},
    {"train.global_batch_size", 1, 1 << 26},
    {"train.train_iters", 0, kBillion},
    {"train.train_tokens", 0, kMany},
    {"train.rampup_batch_size", 0, kMany},
    {"train.eval_interval", 0, kBillion},
    {"train.eval_iters", 0, kBillion},
    {"train.max_nonfinite_steps", 1, kBillion},
    {"train.max_hours", 0, 1e6},
    {"optim.lr", 0, 1e3, true},
    {"optim.min_lr", 0, 1e3},
    {"optim.lr_warmup_iters", 0, kBillion},
    {"optim.lr_decay_iters", 0, kBillion},
    {"optim.lr_wsd_decay_iters", 0, kBillion},
    {"optim.weight_decay", 0, 1e3},
    {"optim.adam_beta1", 0, 1, false, true},
    {"optim.adam_beta2", 0, 1, false, true},
    {"optim.adam_eps", 0, 1, true},
    {"optim.clip_grad", 0, kMany},
    {"optim.router_lr_factor", 0, 1e6},
    {"optim.expert_lr_factor", 0, 1e6},
    {"parallel.expert_model_parallel_size", 1, 1 << 16},
    {"parallel.zero_stage", 0, 1},
    {"parallel.elastic_lanes", 1, 1 << 16},
    {"parallel.ddp_bucket_size", 1, kMany},
    {"parallel.expert_receive_factor", 1, 1e6},
    {"parallel.watchdog_seconds", 0, 1e6},
    {"checkpoint.save_interval", 0, kBillion},
    {"checkpoint.keep", 0, kBillion},
    {"log.interval", 1, kBillion},
});

struct Words {
  std::string_view key;
  std::string_view allowed;  // "a, b, c"
};

constexpr auto kWords = std::to_array<Words>({
    {"device", "auto, cpu, cuda"},
    {"precision", "auto, fp32, bf16"},
    {"model.moe.router.score_function", "softmax, sigmoid"},
    {"model.moe.router.dtype", "fp32"},
    {"model.moe.aux_loss_scope", "sequence, micro_batch, global_batch"},
    {"model.moe.token_drop_policy", "probs, position"},
    {"train.recompute", "none, selective, full"},
    {"train.cuda_graphs", "auto, none"},
    {"optim.name", "adamw"},
    {"optim.lr_decay_style", "cosine, wsd, linear, constant"},
    {"parallel.deterministic", "layout, elastic"},
    {"parallel.transport", "auto, nccl, staged"},
    {"checkpoint.resume", "auto, required, never"},
    {"checkpoint.on_error", "continue, stop"},
    {"init.optimizer", "keep, fresh"},
});

// Any text, but not none: there is no default.
constexpr auto kNeedText =
    std::to_array<std::string_view>({"data.train.*.path", "data.validation.*.path"});
constexpr auto kFreeText = std::to_array<std::string_view>(
    {"run.dir", "data.tokenizer", "data.train.*.name", "data.validation.*.name", "init.from"});

template <class Table> const auto* find(const Table& table, std::string_view key) {
  const auto* found =
      std::find_if(table.begin(), table.end(), [&](const auto& row) { return row.key == key; });
  return found == table.end() ? nullptr : found;
}

template <class Table> bool holds(const Table& table, std::string_view key) {
  return std::find(table.begin(), table.end(), key) != table.end();
}

bool is_word_of(std::string_view words, std::string_view word) {
  while (!words.empty()) {
    const auto comma = words.find(", ");
    if (words.substr(0, comma) == word) return true;
    words = comma == std::string_view::npos ? std::string_view() : words.substr(comma + 2);
  }
  return false;
}

std::string number(double value) {
  if (std::abs(value) <= kMany && value == std::floor(value))
    return std::to_string(static_cast<std::int64_t>(value));
  return shortest(value);
}

std::string check(std::string_view key, double value) {
  const Range* range = find(kRanges, key);
  GRIST_CHECK(range != nullptr, "no range for {}", key);
  const bool low = range->open_low ? value > range->low : value >= range->low;
  const bool high = range->open_high ? value < range->high : value <= range->high;
  if (low && high) return "";
  std::string want = (range->open_low ? "more than " : "at least ") + number(range->low);
  if (!high) want += (range->open_high ? " and less than " : " and at most ") + number(range->high);
  return fmt::format("{} is out of range; want {}", number(value), want);
}

std::string check(std::string_view key, std::int64_t value) {
  return check(key, static_cast<double>(value));
}

std::string check(std::string_view key, const std::string& value) {
  if (const Words* words = find(kWords, key)) {
    if (is_word_of(words->allowed, value)) return "";
    const bool softplus =
        key.ends_with("score_function") && (value == "sqrt_softplus" || value == "sqrtsoftplus");
    return fmt::format("{}; want {}{}{}", value.empty() ? "\"\"" : value,
                       words->allowed.find(',') == std::string_view::npos ? "" : "one of ",
                       words->allowed, softplus ? " (sqrt_softplus is not supported for now)" : "");
  }
  if (holds(kNeedText, key)) return value.empty() ? "empty; want a path" : "";
  GRIST_CHECK(holds(kFreeText, key), "no rule for {}", key);
  return "";
}

std::string check(std::string_view /*key*/, bool /*value*/) {
  return "";
}
std::string check(std::string_view key, const std::optional<double>& value) {
  return value ? check(key, *value) : "";
}
std::string check(std::string_view key, const std::vector<std::int64_t>& values) {
  for (const std::int64_t v : values)
    if (std::string problem = check(key, v); !problem.empty()) return problem;
  return "";
}
std::string check(std::string_view /*key*/, const std::vector<DataSourceConfig>& /*sources*/) {
  return "";  // item by item
}

}  // namespace

std::string check_limits(std::string_view key, const Target& target) {
  return std::visit([&](const auto* value) { return check(key, *value); }, target);
}

bool has_limit(std::string_view key) {
  return find(kRanges, key) != nullptr || find(kWords, key) != nullptr || holds(kNeedText, key) ||
         holds(kFreeText, key);
}

}  // namespace grist::config
