// Names of other families.
#include <gtest/gtest.h>

#include "support.h"

namespace grist {
namespace {

using test::kSmall;
using test::message_of;
using test::replaced;

constexpr std::string_view kTrainPart = R"(
run: {dir: r}
data: {train: [{path: a}], seq_length: 8}
train: {micro_batch_size: 1, global_batch_size: 1, train_iters: 1}
)";

Config load(const std::string& model) {
  return parse_config(std::string(kTrainPart) + model, "f.yaml", {}).config;
}

TEST(Spelling, ReadsMixtralsConfig) {
  const Config c = load(R"(model: {hidden_act: silu, hidden_size: 64, intermediate_size: 1024,
    moe_intermediate_size: 128, num_local_experts: 64, num_experts_per_tok: 8, rope_theta: 1e6,
    num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 256,
    router_aux_loss_coef: 0.02, router_jitter_noise: 0.0, sliding_window: null,
    attention_dropout: 0.0, tie_word_embeddings: false, rms_norm_eps: 1.0e-6})");

  EXPECT_EQ(c.model.moe.num_experts, 64);
  EXPECT_EQ(c.model.moe.granularity, 8);
  EXPECT_EQ(c.model.moe.flops_multiplier, 1.0);
  EXPECT_EQ(c.model.moe.aux_loss_coeff, 0.02);
  EXPECT_EQ(c.model.rope_theta, 1e6);
  EXPECT_FALSE(c.model.moe.router.pre_softmax);
}

TEST(Spelling, ReadsDeepSeeksWords) {
  const Config c = load(R"(model: {hidden_size: 64, intermediate_size: 256,
    moe_intermediate_size: 32, n_routed_experts: 16, num_experts_per_tok: 4, scoring_func: sigmoid,
    norm_topk_prob: true, routed_scaling_factor: 2.5, first_k_dense_replace: 1,
    num_hidden_layers: 2, num_attention_heads: 4, vocab_size: 256,
    rope_parameters: {rope_theta: 5000, rope_type: default}})");

  EXPECT_EQ(c.model.moe.router.score_function, ScoreFunction::sigmoid);
  EXPECT_TRUE(c.model.moe.router.norm_topk_prob);
  EXPECT_EQ(c.model.moe.router.routed_scaling_factor, 2.5);
  EXPECT_EQ(c.model.moe.first_k_dense_replace, 1);
  EXPECT_EQ(c.model.rope_theta, 5000.0);
}

TEST(Spelling, ReadsMegatronsWords) {
  const Config c = load(R"(model: {num_layers: 2, hidden_size: 64, num_attention_heads: 4,
    ffn_hidden_size: 256, num_query_groups: 2, kv_channels: 32, rotary_base: 500,
    norm_epsilon: 1e-6,
    qk_layernorm: true, init_method_std: 0.01, num_experts: 16, moe_ffn_hidden_size: 64,
    moe_router_topk: 1, moe_router_pre_softmax: true, moe_aux_loss_coeff: 0.03,
    moe_z_loss_coeff: 0.004, moe_expert_capacity_factor: 1.5, moe_token_drop_policy: position,
    moe_shared_expert_intermediate_size: 16, vocab_size: 256})");

  EXPECT_EQ(c.model.num_hidden_layers, 2);
  EXPECT_EQ(c.model.num_key_value_heads, 2);
  EXPECT_EQ(c.model.head_dim, 32);
  EXPECT_TRUE(c.model.qk_norm);
  EXPECT_EQ(c.model.moe.granularity, 4);
  EXPECT_TRUE(c.model.moe.router.pre_softmax);
  EXPECT_EQ(c.model.moe.capacity_factor, 1.5);
  EXPECT_EQ(c.model.moe.shared_expert_intermediate_size, 16);
}

TEST(Spelling, TwoThatAgreeAreAccepted) {
  const std::string text =
      replaced(kSmall, "  hidden_size: 64\n", "  hidden_size: 64\n  num_layers: 2\n");

  EXPECT_EQ(message_of(text), "loaded");
}

TEST(Spelling, TwoThatDisagreeAreRefusedWithBoth) {
  const std::string message =
      message_of(replaced(kSmall, "  hidden_size: 64\n", "  hidden_size: 64\n  num_layers: 3\n"));

  EXPECT_EQ(message,
            "f.yaml:5: model.num_hidden_layers: model.num_layers 3 here, but "
            "model.num_hidden_layers 2 at f.yaml:3; they mean the same key");
}

TEST(Spelling, AProblemWithAnAliasNamesIt) {
  const std::string message =
      message_of(replaced(kSmall, "num_hidden_layers: 2", "num_layers: two"));

  EXPECT_EQ(message,
            "f.yaml:3: model.num_hidden_layers: two; want a whole number (written as "
            "model.num_layers)");
}

TEST(Spelling, SaysWhenTheAuxLossOfHuggingFaceIsRead) {
  const LoadedConfig loaded = parse_config(
      replaced(kSmall, "granularity: 4", "granularity: 4\n    router_aux_loss_coef: 0.5"), "f.yaml",
      {});

  ASSERT_EQ(loaded.notes.size(), 1U);
  EXPECT_EQ(loaded.notes[0].rfind("f.yaml:11: model.moe.router_aux_loss_coef: read as", 0), 0U)
      << loaded.notes[0];
}

TEST(Spelling, SaysWhereMegatronsWordsMeanSomethingElse) {
  const LoadedConfig loaded =
      parse_config(replaced(kSmall, "  hidden_size: 64\n",
                            "  hidden_size: 64\n  moe_router_score_function: sigmoid\n"
                            "  moe_router_bias_update_rate: 0.001\n"),
                   "f.yaml", {});

  ASSERT_EQ(loaded.notes.size(), 2U);
  EXPECT_NE(loaded.notes[0].find("norm_topk_prob: true"), std::string::npos) << loaded.notes[0];
  EXPECT_NE(loaded.notes[1].find("switches balancing"), std::string::npos) << loaded.notes[1];
}

TEST(Spelling, FlatNormTopkProbNeedsPreSoftmax) {
  const std::string base =
      replaced(kSmall, "  hidden_size: 64\n", "  hidden_size: 64\n  norm_topk_prob: false\n");

  EXPECT_EQ(message_of(base), "loaded");  // pre_softmax is written there
}

}  // namespace
}  // namespace grist
