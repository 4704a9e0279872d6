// Wrong descriptions of experts and routers.
#include <gtest/gtest.h>

#include "wrong.h"

namespace grist {
namespace {

using test::expect_refused;
using test::name_of;
using test::replaced;
using test::small;
using test::Wrong;

std::string experts(std::string_view lines) {
  return small("    expansion_rate: 8\n    granularity: 4\n    flops_multiplier: 1\n", lines);
}

class WrongExperts : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongExperts, AreRefusedWithPlaceAndReason) {
  expect_refused(GetParam());
}

const Wrong kExperts[] = {
    {"WidthDisagrees",
     small("granularity: 4", "granularity: 4\n    moe_intermediate_size: 32"),
     {"f.yaml:11:", "32 does not agree with intermediate_size 256 / granularity 4 = 64"}},
    {"CountDisagrees",
     small("granularity: 4", "granularity: 4\n    num_experts: 16"),
     {"f.yaml:11:", "16 does not agree with granularity 4 * expansion_rate 8 = 32"}},
    {"TopKDisagrees",
     small("granularity: 4", "granularity: 4\n    num_experts_per_tok: 8"),
     {"f.yaml:11:", "8 does not agree with granularity 4 * flops_multiplier 1 = 4"}},
    {"GranularityDoesNotDivide",
     small("granularity: 4", "granularity: 3"),
     {"f.yaml:10:", "intermediate_size 256 is not a multiple of granularity 3"}},
    {"WidthDoesNotDivide",
     small("granularity: 4", "moe_intermediate_size: 100"),
     {"intermediate_size 256 is not a multiple of moe_intermediate_size 100"}},
    {"TopKNotWhole",
     small("flops_multiplier: 1", "flops_multiplier: 0.3"),
     {"granularity 4 * flops_multiplier 0.3 = 1.2; want a whole num_experts_per_tok"}},
    {"TopKTooLarge",
     small("flops_multiplier: 1", "flops_multiplier: 9"),
     {"model.moe.num_experts_per_tok: 36 experts a token, but there are only 32"}},
    {"GranularityMissing",
     experts("    expansion_rate: 8\n    flops_multiplier: 1\n"),
     {"model.moe.granularity: missing; write granularity or moe_intermediate_size"}},
    {"OthersMissing",
     experts("    granularity: 8\n"),
     {"expansion_rate: missing; write expansion_rate or num_experts",
      "flops_multiplier: missing; write flops_multiplier or num_experts_per_tok"},
     2},
    {"TwoReadings",
     experts("    num_experts: 8\n    num_experts_per_tok: 2\n"),
     {"f.yaml:6: model.intermediate_size: 256 can be read in two ways beside num_experts 8",
      "the width of one expert (Mixtral's", "d_ff, which the experts are cut from"}},
    {"TwoReadingsMixtral",
     small("  moe:\n    expansion_rate: 8\n    granularity: 4\n    flops_multiplier: 1\n"
           "    router: {pre_softmax: false}\n",
           "  num_local_experts: 8\n  num_experts_per_tok: 2\n"),
     {"two ways beside num_local_experts 8"}},
    {"SpellingsDisagree",
     small("granularity: 4", "granularity: 4\n    num_local_experts: 32\n    num_experts: 64"),
     {"f.yaml:12: model.moe.num_experts: model.moe.num_experts 64 here, but "
      "model.moe.num_local_experts 32 at f.yaml:11"}},
    {"ExpertSettingsInDense",
     experts("    aux_loss_coeff: 0.5\n"),
     {"model.moe.aux_loss_coeff: 0.5 has no effect: the model has no experts"}},
    {"Top1AfterSoftmax",
     small("granularity: 4", "granularity: 1"),
     {"f.yaml:12: model.moe.router.pre_softmax: false with num_experts_per_tok 1",
      "the router gets no gradient"}},
    {"Top1PreNorm",
     replaced(small("granularity: 4", "granularity: 1"), "{pre_softmax: false}",
              "{pre_softmax: true, norm_topk_prob: true}"),
     {"norm_topk_prob: true with num_experts_per_tok 1", "the router gets no gradient"}},
    {"Top1SigmoidNorm",
     replaced(small("granularity: 4", "granularity: 1"), "{pre_softmax: false}",
              "{score_function: sigmoid, norm_topk_prob: true}"),
     {"norm_topk_prob: true with num_experts_per_tok 1"}},
    {"PreSoftmaxSigmoid",
     small("{pre_softmax: false}", "{score_function: sigmoid, pre_softmax: true}"),
     {"pre_softmax: true with score_function sigmoid"}},
    {"BiasAfterSoftmax",
     small("granularity: 4", "granularity: 4\n    expert_bias_update_rate: 0.001"),
     {"f.yaml:11: model.moe.expert_bias_update_rate: 0.001 with softmax after top-k"}},
    {"BiasPreNorm",
     replaced(small("granularity: 4", "granularity: 4\n    expert_bias_update_rate: 0.001"),
              "{pre_softmax: false}", "{pre_softmax: true, norm_topk_prob: true}"),
     {"0.001 with pre_softmax and norm_topk_prob"}},
    {"NormAfterSoftmax",
     small("{pre_softmax: false}", "{norm_topk_prob: true}"),
     {"norm_topk_prob: true with softmax after top-k", "sum to 1 already"}},
    {"FlatNorm",
     replaced(small("    router: {pre_softmax: false}\n", ""), "  hidden_size: 64\n",
              "  hidden_size: 64\n  norm_topk_prob: false\n"),
     {"f.yaml:5:", "goes with a softmax over all experts"}},
    {"PolicyWithoutCapacity",
     small("granularity: 4", "granularity: 4\n    token_drop_policy: position"),
     {"f.yaml:11:", "position has no effect without capacity_factor"}},
    {"MoreThanTheRouterTakes",
     small("granularity: 4", "granularity: 4\n    num_experts: 8192"),
     {"f.yaml:11:", "8192", "4096"}},
};

INSTANTIATE_TEST_SUITE_P(Experts, WrongExperts, ::testing::ValuesIn(kExperts), name_of);

}  // namespace
}  // namespace grist
