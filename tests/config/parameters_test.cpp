// Parameter and FLOP counts against sums done by hand.
#include "grist/config/parameters.h"

#include <gtest/gtest.h>

namespace grist {
namespace {

ModelConfig model(std::int64_t layers, std::int64_t width, std::int64_t vocab, std::int64_t G,
                  std::int64_t multiplier) {
  ModelConfig m;
  m.num_hidden_layers = layers;
  m.hidden_size = width;
  m.num_attention_heads = m.num_key_value_heads = width / 128;
  m.head_dim = 128;
  m.intermediate_size = 4 * width;
  m.vocab_size = vocab;
  m.moe.granularity = G;
  m.moe.num_experts = 8 * G;
  m.moe.num_experts_per_tok = multiplier * G;
  m.moe.moe_intermediate_size = 4 * width / G;
  return m;
}

TEST(Parameters, ReproduceTheTotalsOfTheLargePresets) {
  const ParameterCount a = count_parameters(model(24, 2048, 256000, 1, 1));
  const ParameterCount b = count_parameters(model(24, 2048, 256000, 1, 2));
  const ParameterCount c = count_parameters(model(32, 4096, 256000, 1, 1));
  const ParameterCount d = count_parameters(model(32, 4096, 256000, 1, 2));

  const auto billions = [](std::int64_t n) { return static_cast<double>(n) / 1e9; };
  EXPECT_NEAR(billions(a.total), 11.12, 0.005);
  EXPECT_NEAR(billions(a.active), 2.66, 0.005);
  EXPECT_NEAR(billions(b.active), 3.87, 0.005);
  EXPECT_NEAR(billions(a.total_non_embedding), 10.07, 0.005);
  EXPECT_NEAR(billions(c.total), 55.78, 0.006);  // published without router and norms
  EXPECT_NEAR(billions(c.active), 10.69, 0.005);
  EXPECT_NEAR(billions(d.active), 17.13, 0.005);
  EXPECT_NEAR(billions(c.total_non_embedding), 53.69, 0.005);
}

TEST(Parameters, StayTheSameUnderGranularityButForTheRouter) {
  const ParameterCount coarse = count_parameters(model(24, 2048, 256000, 1, 1));
  const ParameterCount fine = count_parameters(model(24, 2048, 256000, 8, 1));

  EXPECT_EQ(fine.total - coarse.total, 24 * 56 * 2048);
  EXPECT_EQ(fine.active - coarse.active, 24 * 56 * 2048);
}

TEST(Parameters, CountEveryPartOfASmallModel) {
  ModelConfig m;
  m.num_hidden_layers = 3;
  m.hidden_size = 10;
  m.num_attention_heads = 4;
  m.num_key_value_heads = 2;
  m.head_dim = 6;
  m.intermediate_size = 20;
  m.vocab_size = 7;
  m.qk_norm = true;
  m.tie_word_embeddings = true;
  m.moe.num_experts = 5;
  m.moe.num_experts_per_tok = 2;
  m.moe.moe_intermediate_size = 4;
  m.moe.first_k_dense_replace = 1;
  m.moe.shared_expert_intermediate_size = 3;

  const ParameterCount c = count_parameters(m);

  // attention: q 10*24, k and v 10*12 each, o 24*10 = 720; norms 2*10 + 2*6 = 32
  EXPECT_EQ(c.dense_layer.total, 720 + 32 + 3 * 10 * 20);
  // router 50, experts 5 * 120, shared 90
  EXPECT_EQ(c.moe_layer.total, 720 + 32 + 50 + 600 + 90);
  EXPECT_EQ(c.moe_layer.active, 720 + 32 + 50 + 240 + 90);
  EXPECT_EQ(c.embedding, 70);
  EXPECT_EQ(c.total, 1352 + 2 * 1492 + 10 + 70);
  EXPECT_EQ(c.active, 1352 + 2 * 1132 + 10 + 70);
  // matrices 1320 + 2 * 1100 + head 70; attention 3 layers * 2 * 4 * 6 * 16
  EXPECT_EQ(forward_flops_per_token(m, 16), 2.0 * (1320 + 2 * 1100 + 70) + 3 * 2 * 4 * 6 * 16);
  EXPECT_EQ(training_flops_per_token(m, 16), 3 * forward_flops_per_token(m, 16));
}

TEST(Parameters, OfADenseModelAreAllActive) {
  ModelConfig m = model(2, 256, 1000, 1, 1);
  m.moe = {};

  const ParameterCount c = count_parameters(m);

  EXPECT_EQ(c.total, c.active);
  EXPECT_EQ(c.num_moe_layers, 0);
  EXPECT_EQ(c.total, 2 * (4 * 256 * 256 + 3 * 256 * 1024 + 2 * 256) + 256 + 2 * 1000 * 256);
}

TEST(Parameters, EstimateIsCloseToTheCount) {
  const ModelConfig m = model(32, 4096, 256000, 8, 2);

  EXPECT_NEAR(estimate_parameters(m) / static_cast<double>(count_parameters(m).total), 1.0, 0.15);
}

}  // namespace
}  // namespace grist
