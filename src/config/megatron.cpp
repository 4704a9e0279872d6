// Keys of Megatron-core that mean more than one value there, read as they are meant (seen with
// megatron-core 0.19.2, scripts/check_aliases.py).
#include "resolve.h"

namespace grist::config {

namespace {

constexpr std::string_view kRate = "model.moe.expert_bias_update_rate";
constexpr std::string_view kScore = "model.moe.router.score_function";
constexpr std::string_view kNorm = "model.moe.router.norm_topk_prob";

bool spelled_as(const Resolver& r, std::string_view key, std::string_view name) {
  return r.written(key) && r.spelled(key) == name;
}

void set_rate(Resolver& r, Where where, double rate, std::string_view why) {
  r.config().model.moe.expert_bias_update_rate = rate;
  r.bound.notes.push_back(
      fmt::format("{}: {}; taken as {} {}", r.problems.str(where), why, kRate, rate));
  r.origins.insert_or_assign(std::string(kRate), std::string(why));
}

}  // namespace

// Every configuration of Megatron has the rate; it acts with the switch alone.
void read_megatron_bias(Resolver& r) {
  const std::optional<BiasSwitch>& bias = r.bound.bias_switch;
  if (!r.usable({kRate})) return;
  constexpr double kDefaultRate = 1e-3;
  if (bias && bias->on && !r.written(kRate))
    return set_rate(r, bias->where, kDefaultRate, "moe_router_enable_expert_bias without a rate");
  const double rate = r.config().model.moe.expert_bias_update_rate;
  if (bias && !bias->on && rate > 0 && !spelled_as(r, kRate, "moe_router_bias_update_rate"))
    return r.problem(kRate, "{} beside moe_router_enable_expert_bias false; drop one", rate);
  if (rate > 0 && spelled_as(r, kRate, "moe_router_bias_update_rate") && !(bias && bias->on))
    set_rate(r, r.where(kRate), 0,
             "in Megatron moe_router_bias_update_rate acts only with "
             "moe_router_enable_expert_bias: true");
}

// For k > 1 its sigmoid divides the chosen weights by their sum.
void read_megatron_sigmoid(Resolver& r) {
  MoeConfig& e = r.config().model.moe;
  if (!spelled_as(r, kScore, "moe_router_score_function") || r.written(kNorm) ||
      e.router.score_function != ScoreFunction::sigmoid || e.num_experts_per_tok < 2)
    return;
  e.router.norm_topk_prob = true;
  r.bound.notes.push_back(fmt::format(
      "{}: moe_router_score_function sigmoid divides the chosen weights by their sum in Megatron; "
      "taken as norm_topk_prob true",
      r.problems.str(r.where(kScore))));
  r.origins.insert_or_assign(std::string(kNorm), "moe_router_score_function sigmoid");
}

}  // namespace grist::config
