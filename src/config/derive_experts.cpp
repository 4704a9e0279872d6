// granularity, expansion_rate, flops_multiplier <-> num_experts, num_experts_per_tok,
// moe_intermediate_size. Two readings of one MoE layer (arXiv 2506.02890 section 3):
//   moe_intermediate_size = intermediate_size / granularity
//   num_experts           = granularity * expansion_rate
//   num_experts_per_tok   = granularity * flops_multiplier
// 0 means not given, so that a resolved dense config loads again.
#include <cmath>

#include "fields.h"
#include "grist/core/json.h"
#include "resolve.h"

namespace grist::config {

namespace {

constexpr std::string_view kExpansion = "model.moe.expansion_rate";
constexpr std::string_view kGranularity = "model.moe.granularity";
constexpr std::string_view kMultiplier = "model.moe.flops_multiplier";
constexpr std::string_view kExperts = "model.moe.num_experts";
constexpr std::string_view kTopK = "model.moe.num_experts_per_tok";
constexpr std::string_view kWidth = "model.moe.moe_intermediate_size";

constexpr double kMaxExperts = 1 << 16;

std::string number(double value) {
  const std::string text = shortest(value);
  return text.ends_with(".0") ? text.substr(0, text.size() - 2) : text;
}

// In Mixtral's and OLMoE's config.json intermediate_size is the width of one expert.
bool has_two_readings(Resolver& r) {
  const MoeConfig& e = r.config().model.moe;
  if (e.num_experts == 0 || e.granularity != 0 || e.moe_intermediate_size != 0) return false;
  const std::int64_t width = r.config().model.intermediate_size;
  r.problem("model.intermediate_size",
            "{} can be read in two ways beside {} {}: as the width of one expert (Mixtral's and "
            "OLMoE's config.json; then write moe_intermediate_size: {} and intermediate_size as a "
            "multiple of it) or as d_ff, which the experts are cut from (grist's reading; then "
            "write granularity, the width being {} / granularity)",
            width, r.spelled(kExperts), e.num_experts, width, width);
  return true;
}

bool derive_width(Resolver& r) {
  MoeConfig& e = r.config().model.moe;
  const std::int64_t d_ff = r.config().model.intermediate_size;
  if (e.granularity == 0 && e.moe_intermediate_size == 0) {
    r.problem(kGranularity, "missing; write granularity or moe_intermediate_size");
    return false;
  }
  if (e.granularity != 0 && d_ff % e.granularity != 0) {
    r.problem(kGranularity, "intermediate_size {} is not a multiple of granularity {}", d_ff,
              e.granularity);
    return false;
  }
  if (e.moe_intermediate_size == 0) {
    e.moe_intermediate_size = d_ff / e.granularity;
    r.derive(kWidth, "intermediate_size / granularity");
  } else if (e.granularity == 0) {
    if (d_ff % e.moe_intermediate_size != 0) {
      r.problem(kWidth, "intermediate_size {} is not a multiple of moe_intermediate_size {}", d_ff,
                e.moe_intermediate_size);
      return false;
    }
    e.granularity = d_ff / e.moe_intermediate_size;
    r.derive(kGranularity, "intermediate_size / moe_intermediate_size");
  } else if (e.granularity * e.moe_intermediate_size != d_ff) {
    r.problem(kWidth, "{} does not agree with intermediate_size {} / granularity {} = {}",
              e.moe_intermediate_size, d_ff, e.granularity, d_ff / e.granularity);
    return false;
  }
  return true;
}

// count = granularity * factor, for the number of experts and for top-k.
bool derive_count(Resolver& r, std::string_view count_key, std::int64_t& count,
                  std::string_view factor_key, double& factor) {
  const std::int64_t granularity = r.config().model.moe.granularity;
  const std::string_view name = factor_key.substr(factor_key.rfind('.') + 1);
  const std::string_view count_name = count_key.substr(count_key.rfind('.') + 1);
  if (count == 0 && factor == 0) {
    r.problem(factor_key, "missing; write {} or {}", name, count_name);
    return false;
  }
  if (factor == 0) {
    factor = static_cast<double>(count) / static_cast<double>(granularity);
    r.derive(factor_key, fmt::format("{} / granularity", count_name));
    return true;
  }
  const double product = static_cast<double>(granularity) * factor;
  const double rounded = std::round(product);
  if (std::abs(product - rounded) > 1e-9 * product || rounded < 1) {
    r.problem(factor_key, "granularity {} * {} {} = {}; want a whole {}", granularity, name,
              number(factor), number(product), count_name);
    return false;
  }
  if (rounded > kMaxExperts) {
    r.problem(factor_key, "granularity {} * {} {} = {}; want at most {}", granularity, name,
              number(factor), number(rounded), number(kMaxExperts));
    return false;
  }
  const auto want = static_cast<std::int64_t>(rounded);
  if (count == 0) {
    count = want;
    r.derive(count_key, fmt::format("granularity * {}", name));
  } else if (count != want) {
    r.problem(count_key, "{} does not agree with granularity {} * {} {} = {}", count, granularity,
              name, number(factor), want);
    return false;
  }
  return true;
}

// A dense model: a setting of experts would be read and ignored.
void refuse_expert_settings(Resolver& r) {
  Config plain;
  const std::vector<Slot> defaults = slots_of(plain);
  const std::vector<Slot> slots = slots_of(r.config());
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const std::string& key = slots[i].key;
    if (!key.starts_with("model.moe.") || !r.usable({key})) continue;
    const std::string value = text_of(slots[i].target);
    if (value != text_of(defaults[i].target))
      r.problem(key,
                "{} has no effect: the model has no experts (write expansion_rate, "
                "granularity and flops_multiplier, or drop it)",
                value);
  }
}

}  // namespace

void derive_experts(Resolver& r) {
  if (!r.usable({kExpansion, kGranularity, kMultiplier, kExperts, kTopK, kWidth,
                 "model.intermediate_size"}))
    return;
  MoeConfig& e = r.config().model.moe;
  const bool any = e.expansion_rate != 0 || e.granularity != 0 || e.flops_multiplier != 0 ||
                   e.num_experts != 0 || e.num_experts_per_tok != 0 || e.moe_intermediate_size != 0;
  if (!any) return refuse_expert_settings(r);
  if (has_two_readings(r) || !derive_width(r)) return;
  const bool counted = derive_count(r, kExperts, e.num_experts, kExpansion, e.expansion_rate);
  const bool chosen =
      derive_count(r, kTopK, e.num_experts_per_tok, kMultiplier, e.flops_multiplier);
  if (counted && chosen && e.num_experts_per_tok > e.num_experts)
    r.problem(kTopK, "{} experts a token, but there are only {}", e.num_experts_per_tok,
              e.num_experts);
}

}  // namespace grist::config
