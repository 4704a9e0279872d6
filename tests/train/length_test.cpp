// How long a run is after what it has consumed.
#include "length.h"

#include <gtest/gtest.h>

#include "grist/core/error.h"

namespace grist::train {
namespace {

constexpr std::string_view kConfig = R"(run: {dir: r}
model: {num_hidden_layers: 1, hidden_size: 8, num_attention_heads: 1, intermediate_size: 8, vocab_size: 9}
data: {train: [{path: a}], seq_length: 32}
train: {micro_batch_size: 2, global_batch_size: 4}
)";

LoadedConfig load(std::vector<std::string> sets) {
  return parse_config(kConfig, "f.yaml", sets);
}

constexpr Counters kHundredSteps{.step = 100, .samples = 400, .tokens = 12800};

TEST(Length, IsThatOfTheConfigurationFromTheStart) {
  const Length steps = run_length(load({"train.train_iters=25"}), {});
  const Length tokens = run_length(load({"train.train_tokens=12801"}), {});

  EXPECT_EQ(steps.train_iters, 25);
  EXPECT_EQ(steps.samples, 100);
  EXPECT_EQ(steps.schedule.lr_decay_iters, 25);
  EXPECT_EQ(tokens.train_iters, 101);
  EXPECT_EQ(tokens.samples, 404);
}

TEST(Length, CountsTokensThatOtherBatchSizesConsumed) {
  const auto iters = [](const char* tokens, const char* batch) {
    return run_length(load({tokens, batch}), kHundredSteps).train_iters;
  };
  EXPECT_EQ(iters("train.train_tokens=25600", "train.global_batch_size=4"), 200);
  EXPECT_EQ(iters("train.train_tokens=25600", "train.global_batch_size=8"), 150);
  EXPECT_EQ(iters("train.train_tokens=38400", "train.global_batch_size=8"), 200);
  EXPECT_EQ(iters("train.train_tokens=25600", "train.global_batch_size=2"), 300);
  EXPECT_EQ(iters("train.train_tokens=12800", "train.global_batch_size=8"), 100);
  EXPECT_EQ(iters("train.train_tokens=100", "train.global_batch_size=8"), 100);
}

TEST(Length, RampCountsOnFromTheSamplesConsumed) {
  // 420 samples: 20 of the ramp's 40 are behind at 400, so 6 are a step, then 8.
  const LoadedConfig c = load({"train.train_tokens=14400", "train.global_batch_size=8",
                               "train.rampup_batch_size=[4, 2, 800]"});

  const Length length = run_length(c, kHundredSteps);

  EXPECT_EQ(length.train_iters, 109);  // 50 samples in steps of 6
  EXPECT_EQ(length.samples, 454);
}

TEST(Length, ADerivedDecayEndsWithTheRunAndAWrittenOneStays) {
  const Length derived =
      run_length(load({"train.train_tokens=38400", "train.global_batch_size=8"}), kHundredSteps);
  const Length written = run_length(load({"train.train_tokens=38400", "train.global_batch_size=8",
                                          "optim.lr_decay_iters=170", "optim.min_lr=1e-5"}),
                                    kHundredSteps);

  EXPECT_EQ(derived.schedule.lr_decay_iters, 200);
  EXPECT_EQ(written.schedule.lr_decay_iters, 170);
}

TEST(Length, ARestAtLearningRateZeroIsRefused) {
  // As many steps as lr_decay_iters at this batch, but the hundred behind were smaller ones.
  const LoadedConfig c =
      load({"train.train_tokens=38400", "train.global_batch_size=8", "optim.lr_decay_iters=150"});

  try {
    run_length(c, kHundredSteps);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::config);
    EXPECT_NE(std::string(e.what()).find("steps 151 to 200 at learning rate 0"), std::string::npos)
        << e.what();
  }
}

TEST(Length, NothingLeftNamesWhatToRaise) {
  EXPECT_EQ(nothing_left(load({"train.train_iters=100"}).config, kHundredSteps),
            "all 100 steps are done; raise train.train_iters to go on");
  EXPECT_EQ(nothing_left(load({"train.train_tokens=12799"}).config, kHundredSteps),
            "all 12800 tokens are done; raise train.train_tokens to go on");
  EXPECT_EQ(
      nothing_left(load({"train.train_iters=12"}).config, kHundredSteps),
      "the checkpoint has done 100 steps, more than train.train_iters 12; nothing is trained. "
      "Raise train.train_iters above 100 to go on, or take an earlier checkpoint with "
      "checkpoint.resume_step");
}

}  // namespace
}  // namespace grist::train
