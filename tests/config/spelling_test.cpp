// Names of other families.
#include <gtest/gtest.h>

#include "fields.h"
#include "spelling.h"
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

LoadedConfig with_model_keys(const std::string& lines) {
  return parse_config(replaced(kSmall, "  hidden_size: 64\n", "  hidden_size: 64\n" + lines),
                      "f.yaml", {});
}

TEST(Spelling, MegatronsSigmoidDividesByTheSum) {
  const LoadedConfig loaded = with_model_keys("  moe_router_score_function: sigmoid\n");

  EXPECT_TRUE(loaded.config.model.moe.router.norm_topk_prob);
  ASSERT_EQ(loaded.notes.size(), 1U);
  EXPECT_NE(loaded.notes[0].find("taken as norm_topk_prob true"), std::string::npos);
}

TEST(Spelling, MegatronsSigmoidLeavesAWrittenNormAndOneExpertAlone) {
  const LoadedConfig written =
      with_model_keys("  moe_router_score_function: sigmoid\n  norm_topk_prob: false\n");
  const LoadedConfig top1 = parse_config(
      replaced(replaced(kSmall, "flops_multiplier: 1", "flops_multiplier: 0.25"),
               "  hidden_size: 64\n", "  hidden_size: 64\n  moe_router_score_function: sigmoid\n"),
      "f.yaml", {});

  EXPECT_FALSE(written.config.model.moe.router.norm_topk_prob);
  EXPECT_FALSE(top1.config.model.moe.router.norm_topk_prob);
}

TEST(Spelling, MegatronsBiasRateActsWithItsSwitchAlone) {
  const std::string sigmoid = "  scoring_func: sigmoid\n";
  const std::string rate = "  moe_router_bias_update_rate: 0.002\n";
  const std::string on = "  moe_router_enable_expert_bias: true\n";
  const std::string off = "  moe_router_enable_expert_bias: false\n";
  const auto update_rate = [&](const std::string& keys) {
    return with_model_keys(sigmoid + keys).config.model.moe.expert_bias_update_rate;
  };

  EXPECT_EQ(update_rate(rate), 0);
  EXPECT_EQ(update_rate(rate + off), 0);
  EXPECT_EQ(update_rate(rate + on), 0.002);
  EXPECT_EQ(update_rate(on), 0.001);
  EXPECT_EQ(with_model_keys(sigmoid + rate).notes.size(), 1U);
  EXPECT_EQ(with_model_keys(sigmoid + rate + on).notes.size(), 0U);
  EXPECT_EQ(with_model_keys(sigmoid + "  moe_router_bias_update_rate: 0.0\n").notes.size(), 0U);
}

TEST(Spelling, NullMeansNoneWhereOthersWriteIt) {
  const Config c = with_model_keys(R"(  head_dim: null
  num_key_value_heads: null
  moe_router_topk_scaling_factor: null
  moe_shared_expert_intermediate_size: null
  moe_z_loss_coeff: null
  moe_expert_capacity_factor: null
  sliding_window: 0
  window_size: null
  mlp_only_layers: []
  n_group: 1
  topk_group: 1
  n_shared_experts: 0
  num_nextn_predict_layers: 0
  moe_layer_freq: 1
  moe_router_num_groups: null
  moe_router_group_topk: null
  moe_input_jitter_eps: null
  rope_parameters: {rope_type: default, partial_rotary_factor: 1}
)")
                       .config;

  EXPECT_EQ(c.model.head_dim, 16);
  EXPECT_EQ(c.model.num_key_value_heads, 4);
  EXPECT_EQ(c.model.moe.router.routed_scaling_factor, 1.0);
  EXPECT_EQ(c.model.moe.shared_expert_intermediate_size, 0);
  EXPECT_EQ(c.model.moe.z_loss_coeff, 0.0);
  EXPECT_FALSE(c.model.moe.capacity_factor.has_value());
}

TEST(Spelling, ADenseMegatronModelWritesNullForItsExperts) {
  const Config c = load(R"(model: {num_layers: 2, hidden_size: 64, num_attention_heads: 4,
    kv_channels: null, num_query_groups: null, ffn_hidden_size: 256, num_moe_experts: null,
    moe_ffn_hidden_size: null, moe_router_bias_update_rate: 0.001, vocab_size: 256})");

  EXPECT_EQ(c.model.moe.num_experts, 0);
  EXPECT_EQ(c.model.num_key_value_heads, 4);
}

TEST(Spelling, FlatNormTopkProbNeedsPreSoftmax) {
  const std::string base =
      replaced(kSmall, "  hidden_size: 64\n", "  hidden_size: 64\n  norm_topk_prob: false\n");

  EXPECT_EQ(message_of(base), "loaded");  // pre_softmax is written there
}

TEST(Hints, NameTheKeyThatIsMeant) {
  const auto says = [](const char* line) { return message_of(std::string(kSmall) + line); };
  EXPECT_EQ(message_of(std::string(kSmall), {"train.log_interval=5"}),
            "--set train.log_interval=5: train.log_interval: unknown key; did you mean "
            "log.interval?");
  for (const auto& [set, key] :
       {std::pair{"train.dtype=bf16", " precision?"},
        std::pair{"train.optimizer=adamw", " optim.name?"},
        std::pair{"train.learning_rate=1", " optim.lr?"},
        std::pair{"optim.warmup=1", " optim.lr_warmup_iters?"},
        std::pair{"save_every=1", " checkpoint.save_interval?"},
        std::pair{"run_dir=x", " run.dir?"},
        std::pair{"parallel.ep=2", " parallel.expert_model_parallel_size?"},
        std::pair{"data.path=x", " data.train?"}})
    EXPECT_NE(message_of(std::string(kSmall), {set}).find(key), std::string::npos)
        << message_of(std::string(kSmall), {set});
  EXPECT_NE(says("training: {iters: 3}\n").find("did you mean train?"), std::string::npos);
}

TEST(Hints, LeadToKeysThatExistAndHideNone) {
  Config config;
  std::string all = "\n";
  for (const config::Slot& slot : config::slots_of(config)) all += slot.key + "\n";
  for (const config::Hint& hint : config::hints()) {
    const std::string key(hint.key), written(hint.written);
    EXPECT_TRUE(all.find("\n" + key + "\n") != std::string::npos ||
                all.find("\n" + key + ".") != std::string::npos)
        << key;
    EXPECT_EQ(all.find("\n" + written + "\n"), std::string::npos) << written;
    const std::string path = written.find('.') == std::string::npos ? "train." + written : written;
    EXPECT_NE(message_of(std::string(kSmall), {path + "=3"}).find("did you mean " + key + "?"),
              std::string::npos)
        << path;
  }
}

}  // namespace
}  // namespace grist
