// Steps that are not finite: skipped and counted, nothing changes, and the run ends before it
// wastes a night.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "app/support.h"
#include "grist/ckpt/checkpoint.h"
#include "grist/ckpt/safetensors.h"

namespace grist::test {
namespace {

// Weights explode within a few updates.
const Arguments kExploding = {"model.initializer_range=10", "optim.lr=1000",
                              "optim.lr_warmup_iters=0", "optim.clip_grad=0",
                              "optim.lr_decay_style=constant"};

Arguments exploding(const Arguments& more) {
  Arguments sets = kExploding;
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

TEST(NonFinite, StepsAreSkippedCountedAndBounded) {
  const Outcome o =
      world().train("bang", exploding({"checkpoint.save_interval=1", "checkpoint.keep=0"}));

  ASSERT_EQ(o.code, 79) << o;
  const std::vector<std::string> said = lines(o.err);
  ASSERT_EQ(said.size(), 6U) << o;  // a warning a step, then the error
  const std::vector<Json> records = metrics_records(world() / "bang");
  const auto last = static_cast<int>(records.back().at("step").as_int());
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(said[static_cast<std::size_t>(i)].starts_with("warning: step " +
                                                              std::to_string(last - 4 + i)))
        << o;
  }
  const std::string& error = said.back();
  EXPECT_TRUE(error.starts_with("error: 5 steps in a row were not finite")) << o;
  EXPECT_NE(error.find("step " + std::to_string(last)), std::string::npos) << o;
  EXPECT_NE(error.find("checkpoint of step " + std::to_string(last - 1) + " is kept"),
            std::string::npos)
      << o;
  EXPECT_EQ(o.out.find("-nan"), std::string::npos) << o;
  EXPECT_EQ(records.back().at("skipped").as_int(), 5);

  // Parameters and moments stand still through the skipped steps; before, they moved.
  const auto run = world() / "bang";
  const auto first_skipped = tensors(step_folder(run, last - 4));
  for (int step = last - 3; step < last; ++step)
    EXPECT_TRUE(tensors(step_folder(run, step)) == first_skipped) << step;
  EXPECT_TRUE(tensors(step_folder(run, last - 5)) == first_skipped);
  EXPECT_FALSE(tensors(step_folder(run, last - 6)) == first_skipped);
  const Json counters = manifest_state(step_folder(run, last - 1)).at("counters");
  EXPECT_EQ(counters.at("skipped_in_a_row").as_int(), 4);
  EXPECT_EQ(counters.at("skipped").as_int(), 4);
  EXPECT_EQ(counters.at("adam_steps").as_int(), last - 5);
}

// R14: eight ranks skip the same steps as one, say so once, and leave the same bits.
TEST(NonFinite, ManyRanksSkipTogether) {
  const Arguments sets = exploding({"checkpoint.save_interval=1", "parallel.deterministic=elastic",
                                    "train.global_batch_size=16"});
  const Outcome one = world().train("bang-alone", sets);
  ASSERT_EQ(one.code, 79) << one;

  const Outcome o = world().train("bang-together", sets, 8);

  EXPECT_EQ(o.code, 79) << o;
  EXPECT_EQ(warnings_and_errors(o), lines(one.err));
  expect_same_run(world() / "bang-together", world() / "bang-alone");
}

// The rarest token of the training data: some steps meet it, and then one or two ranks of eight.
std::size_t rarest_token() {
  const std::string bytes = read_text(world() / "train.bin");
  std::map<std::uint16_t, int> counts;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
    std::uint16_t token = 0;
    std::memcpy(&token, &bytes[i], sizeof token);
    ++counts[token];
  }
  return std::min_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

// The checkpoint, saved by one rank, again, but with a row of the embeddings that is no number.
void poison_embedding(const std::filesystem::path& run, int step, std::size_t token) {
  const CheckpointReader good(step_folder(run, step));
  const SafetensorsReader shard(shard_of(run, step));
  std::map<std::string, std::string> values = tensors(good.path());
  SaveRequest request{.step = step, .state = good.state(), .shards = {{}}};
  for (const SafetensorsEntry& e : shard.header().entries) {
    std::string& bytes = values.at(e.name);
    if (e.name == "model.embed_tokens.weight") {
      const auto row = static_cast<std::size_t>(e.shape[1]) * sizeof(float);
      for (std::size_t at = token * row; at < (token + 1) * row; at += sizeof(float)) {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        std::memcpy(&bytes[at], &nan, sizeof nan);
      }
    }
    request.shards[0].push_back(whole(e.name, {bytes.data(), e.dtype.value(), e.shape}));
  }
  for (const char* text : {"config.yaml", "tokenizer.json"})
    request.texts.push_back({text, good.text(text)});
  CheckpointFolder(run / "checkpoints", good.manifest().uuid).save(request);
}

// R14: few ranks of eight meet the token; none updates, and the steps without it are taken.
TEST(NonFinite, WhatFewRanksMeetIsSkippedByAll) {
  const Arguments sets = {"parallel.deterministic=elastic", "train.global_batch_size=16",
                          "train.eval_interval=0",          "optim.lr_decay_iters=24",
                          "checkpoint.save_interval=1",     "checkpoint.keep=0",
                          "train.max_nonfinite_steps=20"};
  Arguments begin = sets;
  begin.emplace_back("train.train_iters=4");
  ASSERT_EQ(world().train("poisoned", begin).code, 0);
  poison_embedding(world() / "poisoned", 4, rarest_token());
  std::filesystem::copy(world() / "poisoned", world() / "poisoned-together",
                        std::filesystem::copy_options::recursive);

  const Outcome one = world().train("poisoned", sets);
  const Outcome all = world().train("poisoned-together", sets, 8);

  ASSERT_EQ(one.code, 0) << one;
  EXPECT_EQ(all.code, 0) << all;
  const int skipped = occurrences(all.err, "the update is skipped");
  EXPECT_GE(skipped, 1) << all;
  EXPECT_LT(skipped, 20) << all;
  EXPECT_EQ(warnings_and_errors(all), lines(one.err));
  for (const std::string& line : warnings_and_errors(all)) {
    const int step = std::stoi(line.substr(line.find("step ") + 5));
    EXPECT_TRUE(tensors(step_folder(world() / "poisoned-together", step)) ==
                tensors(step_folder(world() / "poisoned-together", step - 1)))
        << line;
  }
  expect_same_run(world() / "poisoned-together", world() / "poisoned");
  tally(skipped, "steps that few of eight ranks could not take");
}

TEST(NonFinite, ResumingComesToTheSameEnd) {
  const Arguments sets = exploding({"checkpoint.save_interval=3"});
  ASSERT_EQ(world().train("again", sets).code, 79);
  const std::vector<std::string> before = metrics_lines(world() / "again");

  const Outcome o = world().train("again", sets);

  EXPECT_EQ(o.code, 79) << o;
  EXPECT_NE(o.out.find("resuming at step "), std::string::npos) << o;
  EXPECT_EQ(metrics_lines(world() / "again"), before);
}

TEST(NonFinite, MessageNamesACheckpointOnlyIfThereIsOne) {
  const Outcome o = world().train(
      "none", exploding({"checkpoint.save_interval=0", "train.max_nonfinite_steps=2"}));
  EXPECT_EQ(o.code, 79) << o;
  EXPECT_NE(o.err.find("2 steps in a row"), std::string::npos) << o;
  EXPECT_NE(o.err.find("there is no checkpoint"), std::string::npos) << o;
  EXPECT_TRUE(saved_steps(world() / "none").empty());
}

}  // namespace
}  // namespace grist::test
