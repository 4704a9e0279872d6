// Loading what is right: values, defaults, derivations, notes, printing.
#include "grist/config/load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "grist/config/batch_ramp.h"
#include "grist/config/compare.h"
#include "grist/core/file.h"
#include "support.h"

namespace grist {
namespace {

using test::kSmall;
using test::replaced;

LoadedConfig load(std::string_view text, const std::vector<std::string>& sets = {}) {
  return parse_config(text, "f.yaml", sets);
}

std::string origin(const LoadedConfig& loaded, std::string_view key) {
  const auto found = std::find_if(loaded.origins.begin(), loaded.origins.end(),
                                  [&](const KeyOrigin& o) { return o.key == key; });
  return found == loaded.origins.end() ? "no such key" : found->origin;
}

TEST(Load, DerivesExpertsFromGranularity) {
  const MoeConfig e = load(kSmall).config.model.moe;

  EXPECT_EQ(e.num_experts, 32);
  EXPECT_EQ(e.num_experts_per_tok, 4);
  EXPECT_EQ(e.moe_intermediate_size, 64);
}

TEST(Load, DerivesGranularityFromExperts) {
  const std::string text =
      replaced(replaced(replaced(kSmall, "expansion_rate: 8", "num_experts: 32"), "granularity: 4",
                        "moe_intermediate_size: 64"),
               "flops_multiplier: 1", "num_experts_per_tok: 6");

  const MoeConfig e = load(text).config.model.moe;

  EXPECT_EQ(e.expansion_rate, 8);
  EXPECT_EQ(e.granularity, 4);
  EXPECT_EQ(e.flops_multiplier, 1.5);
}

TEST(Load, KeepsRatiosThatAreNotWhole) {
  // DeepSeek-V3's shape: 256 experts of 2048 beside a dense FFN of 18432.
  const std::string text =
      replaced(replaced(replaced(replaced(kSmall, "expansion_rate: 8", "num_experts: 256"),
                                 "granularity: 4", "moe_intermediate_size: 2048"),
                        "flops_multiplier: 1", "num_experts_per_tok: 8"),
               "intermediate_size: 256", "intermediate_size: 18432");

  const LoadedConfig loaded = load(text);
  const LoadedConfig again = load(to_yaml(loaded));

  EXPECT_EQ(loaded.config.model.moe.granularity, 9);
  EXPECT_DOUBLE_EQ(loaded.config.model.moe.expansion_rate, 256.0 / 9.0);
  EXPECT_TRUE(config_differences(again.config, loaded.config).empty());
}

TEST(Load, AcceptsBothDescriptionsWhenTheyAgree) {
  const std::string text = replaced(kSmall, "    granularity: 4\n",
                                    "    granularity: 4\n    num_experts: 32\n"
                                    "    num_experts_per_tok: 4\n    moe_intermediate_size: 64\n");

  EXPECT_EQ(load(text).config.model.moe.num_experts, 32);
}

TEST(Load, FillsDefaultsThatFollowFromOtherKeys) {
  const std::string text =
      replaced(kSmall, "train_iters: 10", "train_tokens: 1000  # 7.8 steps of 4 * 32");

  const Config c = load(text).config;

  EXPECT_EQ(c.model.num_key_value_heads, 4);
  EXPECT_EQ(c.model.head_dim, 16);
  EXPECT_EQ(c.model.max_position_embeddings, 32);
  EXPECT_EQ(c.train.train_iters, 8);
  EXPECT_EQ(c.optim.lr_decay_iters, 8);
  EXPECT_EQ(c.data.train[0].name, "a");
}

TEST(Load, ReadsADenseModel) {
  const std::string text =
      replaced(kSmall,
               "  moe:\n    expansion_rate: 8\n    granularity: 4\n    flops_multiplier: 1\n"
               "    router: {pre_softmax: false}\n",
               "");

  const LoadedConfig loaded = load(text);

  EXPECT_EQ(loaded.config.model.moe.num_experts, 0);
  EXPECT_TRUE(config_differences(load(to_yaml(loaded)).config, loaded.config).empty());
}

TEST(Load, TakesPreSoftmaxWithNormAsSoftmaxAfterTopK) {
  const LoadedConfig loaded =
      load(replaced(kSmall, "{pre_softmax: false}", "{pre_softmax: true, norm_topk_prob: true}"));

  EXPECT_FALSE(loaded.config.model.moe.router.pre_softmax);
  EXPECT_FALSE(loaded.config.model.moe.router.norm_topk_prob);
  ASSERT_EQ(loaded.notes.size(), 1U);
  EXPECT_NE(loaded.notes[0].find("f.yaml:12"), std::string::npos) << loaded.notes[0];
}

TEST(Load, RemembersWhereEachValueCameFrom) {
  const LoadedConfig loaded = load(kSmall, {"optim.min_lr=1e-4"});

  EXPECT_EQ(origin(loaded, "model.hidden_size"), "f.yaml:4");
  EXPECT_EQ(origin(loaded, "data.train.0.path"), "f.yaml:14");
  EXPECT_EQ(origin(loaded, "optim.min_lr"), "--set optim.min_lr=1e-4");
  EXPECT_EQ(origin(loaded, "optim.weight_decay"), "default");
  EXPECT_EQ(origin(loaded, "model.moe.num_experts"), "derived from granularity * expansion_rate");
}

TEST(Load, FollowsAnchorsAndAliases) {
  const Config c = load(replaced(kSmall, "train: [{path: data/a}]",
                                 "train: [&a {path: data/a}]\n  validation: [*a]"))
                       .config;

  ASSERT_EQ(c.data.validation.size(), 1U);
  EXPECT_EQ(c.data.validation[0].path, "data/a");
}

TEST(Load, ReadsJson) {
  const Config c = load(R"({"run": {"dir": "r"}, "model": {"num_hidden_layers": 1,
    "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 128},
    "data": {"train": [{"path": "a"}], "seq_length": 4},
    "train": {"micro_batch_size": 1, "global_batch_size": 1, "train_iters": 1}})")
                       .config;

  EXPECT_EQ(c.model.head_dim, 4);
}

TEST(Load, NamesAMissingFile) {
  try {
    load_config("no/such/file.yaml", {});
    FAIL() << "loaded";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::not_found);
    EXPECT_NE(std::string(e.what()).find("no/such/file.yaml"), std::string::npos) << e.what();
  }
}

TEST(Load, ReadsAFileAndNamesItInOrigins) {
  const std::string path = ::testing::TempDir() + "/grist_config_load_test.yaml";
  write_text_atomically(path, kSmall);

  const LoadedConfig loaded = load_config(path, {});
  std::filesystem::remove(path);

  EXPECT_EQ(origin(loaded, "model.hidden_size"), path + ":4");
}

TEST(ToYaml, LoadsAgainToTheSameConfig) {
  const std::string text = replaced(
      replaced(
          kSmall, "train: [{path: data/a}]",
          "train: [{path: \"a: b # c\", weight: 0.1}, {path: '12', name: \"\\u00e9\\\"\\\\\"}]"),
      "train_iters: 10", "train_tokens: 5000\n  rampup_batch_size: [2, 2, 10]");
  const LoadedConfig loaded = load(text, {"optim.adam_eps=1.23456789012345678e-9",
                                          "model.moe.capacity_factor=1.25", "init.from=yes"});

  const std::string yaml = to_yaml(loaded);
  const LoadedConfig again = load(yaml);

  EXPECT_TRUE(config_differences(loaded.config, again.config).empty()) << yaml;
  EXPECT_TRUE(config_differences(loaded.config, again.config).empty());
  EXPECT_EQ(again.config.data.train[0].path, "a: b # c");
  EXPECT_EQ(again.config.data.train[1].path, "12");
  EXPECT_EQ(again.config.init.from, "yes");
  EXPECT_NE(yaml.find("# --set model.moe.capacity_factor=1.25"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("# derived from granularity * expansion_rate"), std::string::npos) << yaml;
}

TEST(SavedConfig, DerivedValuesFollowWhatTheyComeFrom) {
  const std::string saved = to_yaml(load(kSmall));

  EXPECT_EQ(load(saved, {"train.train_iters=60"}).config.optim.lr_decay_iters, 60);
  EXPECT_EQ(load(saved, {"model.moe.granularity=8"}).config.model.moe.num_experts, 64);
  EXPECT_EQ(load(saved, {"model.hidden_size=128"}).config.model.head_dim, 32);
  EXPECT_EQ(load(saved, {"data.seq_length=64"}).config.model.max_position_embeddings, 64);
  EXPECT_EQ(load(saved, {"data.train.0.path=data/b"}).config.data.train[0].name, "b");
  EXPECT_EQ(
      load(replaced(saved, "train_iters: 10  ", "train_iters: 30  ")).config.optim.lr_decay_iters,
      30);
}

TEST(SavedConfig, DerivedValuesChangedByHandStay) {
  const std::string saved = to_yaml(load(kSmall));
  const std::string edited = replaced(saved, "lr_decay_iters: 10  ", "lr_decay_iters: 20  ");

  EXPECT_EQ(load(edited, {"train.train_iters=15"}).config.optim.lr_decay_iters, 20);
  EXPECT_EQ(load(saved, {"optim.lr_decay_iters=12"}).config.optim.lr_decay_iters, 12);
}

TEST(SavedConfig, WrittenValuesStayAndAreStillChecked) {
  const std::string saved = to_yaml(load(kSmall, {"optim.lr_decay_iters=10"}));

  EXPECT_NE(test::message_of(saved, {"train.train_iters=60"}).find("steps 11 to 60"),
            std::string::npos);
}

TEST(SavedConfig, IsReadAsItStandsForComparing) {
  LoadedConfig loaded =
      load(replaced(kSmall, "  vocab_size: 512\n", ""), {"data.tokenizer=t.json"});
  resolve_vocab_size(loaded, 4097, "t.json");
  const std::string saved = to_yaml(loaded);

  EXPECT_EQ(saved_config(saved, "s.yaml").model.vocab_size, 4224);
  EXPECT_EQ(load(saved).config.model.vocab_size, 0);  // the tokenizer is asked again
}

TEST(VocabSize, IsTakenFromTheTokenizerWhenLeftOut) {
  LoadedConfig loaded =
      load(replaced(kSmall, "  vocab_size: 512\n", ""), {"data.tokenizer=t.json"});
  ASSERT_EQ(loaded.config.model.vocab_size, 0);

  resolve_vocab_size(loaded, 4097, "t.json");

  EXPECT_EQ(loaded.config.model.vocab_size, 4224);
  EXPECT_EQ(origin(loaded, "model.vocab_size"), "derived from 4097 tokens of t.json");
}

TEST(VocabSize, RefusesOneThatIsTooSmall) {
  LoadedConfig loaded = load(kSmall);

  EXPECT_THROW(resolve_vocab_size(loaded, 513, "t.json"), Error);
  EXPECT_NO_THROW(resolve_vocab_size(loaded, 512, "t.json"));
}

TEST(BatchRamp, GrowsInEqualIncrements) {
  TrainConfig t;
  t.micro_batch_size = 2;
  t.global_batch_size = 8;
  t.rampup_batch_size = {2, 2, 30};  // three increments of ten samples

  EXPECT_EQ(global_batch_size_at(t, 0), 2);
  EXPECT_EQ(global_batch_size_at(t, 9), 2);
  EXPECT_EQ(global_batch_size_at(t, 10), 4);
  EXPECT_EQ(global_batch_size_at(t, 29), 6);
  EXPECT_EQ(global_batch_size_at(t, 30), 8);
}

TEST(BatchRamp, CountsStepsAsAStepByStepSumDoes) {
  for (const std::vector<std::int64_t>& ramp :
       {std::vector<std::int64_t>{}, {2, 2, 30}, {1, 7, 5}, {8, 3, 9}, {3, 1, 1000}}) {
    TrainConfig t;
    t.micro_batch_size = 1;
    t.global_batch_size = 8;
    t.rampup_batch_size = ramp;
    for (std::int64_t samples = 1; samples < 1500; samples += 7) {
      std::int64_t consumed = 0, steps = 0;
      for (; consumed < samples; ++steps) consumed += global_batch_size_at(t, consumed);
      t.train_tokens = samples * 16;

      ASSERT_EQ(iterations_for_tokens(t, 16), steps) << samples;
      ASSERT_EQ(samples_after(t, steps), consumed) << samples;
    }
  }
}

TEST(BatchRamp, CountsOnFromWhatIsConsumed) {
  TrainConfig t;
  t.micro_batch_size = 1;
  t.global_batch_size = 8;
  t.rampup_batch_size = {2, 2, 30};
  for (std::int64_t behind = 0; behind < 40; behind += 3) {
    const Consumed done{.steps = 7, .samples = behind, .tokens = behind * 16};
    std::int64_t consumed = behind, steps = 7;
    for (; consumed < 90; ++steps) consumed += global_batch_size_at(t, consumed);
    t.train_tokens = 90 * 16;

    EXPECT_EQ(iterations_for_tokens(t, 16, done), steps) << behind;
    EXPECT_EQ(samples_after(t, steps, done), consumed) << behind;
  }
  EXPECT_EQ(batch_sizes_from(t, 0), (std::vector<std::int64_t>{2, 4, 6, 8}));
  EXPECT_EQ(batch_sizes_from(t, 20), (std::vector<std::int64_t>{6, 8}));
}

}  // namespace
}  // namespace grist
