// Router modes that do not learn, or that two keys describe differently (maths: docs/routing.md).
#include "resolve.h"

namespace grist::config {

namespace {

constexpr std::string_view kScore = "model.moe.router.score_function";
constexpr std::string_view kPre = "model.moe.router.pre_softmax";
constexpr std::string_view kNorm = "model.moe.router.norm_topk_prob";
constexpr std::string_view kBias = "model.moe.expert_bias_update_rate";
constexpr std::string_view kTopK = "model.moe.num_experts_per_tok";

// A flat norm_topk_prob comes from a config.json whose softmax is over all experts.
bool flat_norm_is_ambiguous(Resolver& r) {
  const auto norm = r.bound.written.find(kNorm);
  if (norm == r.bound.written.end() || norm->second.spelled != "model.norm_topk_prob" ||
      r.written(kPre) || r.config().model.moe.router.score_function != ScoreFunction::softmax)
    return false;
  r.problem(kNorm,
            "in Hugging Face's config.json norm_topk_prob goes with a softmax over all experts; "
            "write model.moe.router.pre_softmax: true (theirs) or false (softmax over the chosen "
            "ones) too");
  return true;
}

// With one expert a token a normalised weight is 1 whatever the router says.
void check_top1(Resolver& r) {
  const RouterConfig& router = r.config().model.moe.router;
  if (router.norm_topk_prob)
    r.problem(kNorm,
              "true with num_experts_per_tok 1: the one weight divided by itself is 1, so that the "
              "router gets no gradient; write norm_topk_prob: false{}",
              router.score_function == ScoreFunction::softmax ? " and pre_softmax: true" : "");
  else if (router.score_function == ScoreFunction::softmax && !router.pre_softmax)
    r.problem(kPre,
              "false with num_experts_per_tok 1: a softmax over one chosen expert is always 1, so "
              "that the router gets no gradient; write pre_softmax: true");
}

void check_bias(Resolver& r) {
  const MoeConfig& e = r.config().model.moe;
  const RouterConfig& router = e.router;
  if (e.expert_bias_update_rate <= 0 || router.score_function != ScoreFunction::softmax) return;
  if (!router.pre_softmax)
    r.problem(kBias,
              "{} with softmax after top-k (pre_softmax false): a selection bias there is not "
              "supported; write score_function: sigmoid or pre_softmax: true",
              e.expert_bias_update_rate);
  else if (router.norm_topk_prob)
    r.problem(kBias,
              "{} with pre_softmax and norm_topk_prob: that is softmax after top-k, but chooses "
              "differently once a bias is added; write score_function: sigmoid or norm_topk_prob: "
              "false",
              e.expert_bias_update_rate);
}

void normalise(Resolver& r) {
  RouterConfig& router = r.config().model.moe.router;
  const std::string at = r.problems.str(r.where(kNorm));
  r.bound.notes.push_back(fmt::format(
      "{}: pre_softmax with norm_topk_prob is softmax after top-k; taken as pre_softmax "
      "false, norm_topk_prob false",
      at));
  router.pre_softmax = false;
  router.norm_topk_prob = false;
  for (const std::string_view key : {kPre, kNorm})
    r.origins.insert_or_assign(std::string(key),
                               at + ", pre_softmax true with norm_topk_prob true");
}

}  // namespace

void check_router(Resolver& r) {
  const MoeConfig& e = r.config().model.moe;
  if (e.num_experts == 0 || !r.usable({kScore, kPre, kNorm, kBias}) || flat_norm_is_ambiguous(r))
    return;
  const RouterConfig& router = e.router;
  const bool softmax = router.score_function == ScoreFunction::softmax;
  if (!softmax && router.pre_softmax)
    r.problem(kPre, "true with score_function {}: there is no softmax to place; drop one",
              word(router.score_function));
  if (e.num_experts_per_tok == 1 && r.usable({kTopK}))
    check_top1(r);
  else if (softmax && !router.pre_softmax && router.norm_topk_prob)
    r.problem(kNorm,
              "true with softmax after top-k (pre_softmax false): those weights sum to 1 already; "
              "drop norm_topk_prob");
  check_bias(r);
  if (r.usable({kNorm, kBias, kPre}) && softmax && router.pre_softmax && router.norm_topk_prob)
    normalise(r);
}

}  // namespace grist::config
