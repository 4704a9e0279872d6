// Steps that are not finite: skipped and counted, nothing changes, and the run ends before it
// wastes a night.
#include "app/support.h"

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
