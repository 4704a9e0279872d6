// Continued pretraining: another run's weights with new data and a new schedule.
#include <cstring>

#include "app/support.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

const Arguments kNewPhase = {"init.from=parent", "data.train=[{path: validation}]",
                             "train.train_iters=8", "train.eval_interval=4", "optim.lr=1.0e-3"};

Arguments with(Arguments sets, const Arguments& more) {
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

// Only the model: what a fresh optimizer starts from.
std::map<std::string, std::string> weights(const fs::path& step) {
  auto all = tensors(step);
  std::erase_if(all, [](const auto& t) { return t.first.starts_with("optim."); });
  return all;
}

class Continued : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(world().train("parent").code, 0); }
};

TEST_F(Continued, StartsAtStepZeroWithTheParentsWeights) {
  // Stopped at once by the learning rate: 1e-300 moves no fp32 weight.
  const Arguments frozen = {"init.from=parent", "train.train_iters=1", "optim.lr=1.0e-300",
                            "optim.lr_warmup_iters=0"};
  for (const char* optimizer : {"keep", "fresh"}) {
    const std::string run = std::string("frozen-") + optimizer;
    const Outcome o =
        world().train(run, with(frozen, {std::string("init.optimizer=") + optimizer}));
    ASSERT_EQ(o.code, 0) << o;
    auto got = weights(step_folder(world() / run, 1));
    auto want = weights(step_folder(world() / "parent", 24));
    for (auto* t : {&got, &want})  // load fractions of the last step move with the data
      std::erase_if(*t, [](const auto& e) { return e.first.starts_with("balance."); });
    EXPECT_TRUE(got == want);

    const Json state = manifest_state(step_folder(world() / run, 1));
    EXPECT_EQ(state.at("counters").at("step").as_int(), 1);
    EXPECT_EQ(state.at("counters").at("consumed_samples").as_int(), 4);
    EXPECT_EQ(state.at("counters").at("adam_steps").as_int(),
              std::string(optimizer) == "keep" ? 25 : 1);
    const Json& parent = state.at("parent");
    EXPECT_EQ(parent.at("step").as_int(), 24);
    EXPECT_EQ(parent.at("optimizer").as_string(), optimizer);
    EXPECT_NE(parent.at("path").as_string().find("step-00000024"), std::string::npos);

    // The same validation set and the same weights: the same loss as the parent's last.
    const auto val_loss = [](const std::string& of) {
      return metrics_records(world() / of).back().at("val_loss").as_double();
    };
    EXPECT_EQ(val_loss(run), val_loss("parent"));
    // The gradient is applied to moments that the parent left, or to none.
    EXPECT_EQ(tensors(step_folder(world() / run, 1)).size(),
              tensors(step_folder(world() / "parent", 24)).size());
  }
  EXPECT_FALSE(tensors(step_folder(world() / "frozen-keep", 1)) ==
               tensors(step_folder(world() / "frozen-fresh", 1)));
}

TEST_F(Continued, RecordsTheParentAndDoesNotNeedItAnyMore) {
  ASSERT_EQ(world().train("child-whole", kNewPhase).code, 0);
  ASSERT_EQ(world().train("child", with(kNewPhase, {"train.max_hours=1e-7"})).code, 75);
  const std::string config = read_text(world() / "child/config.yaml");
  EXPECT_TRUE(config.starts_with("# continued from {")) << config;
  EXPECT_NE(config.find("step-00000024"), std::string::npos);

  fs::rename(world() / "parent", world() / "gone");
  const Outcome o = world().train("child", kNewPhase);

  EXPECT_EQ(o.code, 0) << o;
  EXPECT_NE(o.out.find("resuming at step 1"), std::string::npos) << o;
  expect_same_run(world() / "child", world() / "child-whole");
  EXPECT_TRUE(read_text(world() / "child/config.yaml").starts_with("# continued from {"));
  EXPECT_EQ(manifest_state(step_folder(world() / "child", 8)).at("parent").at("step").as_int(), 24);
  fs::rename(world() / "gone", world() / "parent");
}

TEST_F(Continued, TakesAStepFolderAndTheParentsNewestGoodStep) {
  const std::string step = "parent/checkpoints/step-00000020";
  ASSERT_EQ(world().train("from-step", with(kNewPhase, {"init.from=" + step})).code, 0);
  EXPECT_EQ(manifest_state(step_folder(world() / "from-step", 8)).at("parent").at("step").as_int(),
            20);

  flip_byte(shard_of(world() / "parent", 24), 60000);
  const Outcome o = world().train("from-run", kNewPhase);
  EXPECT_EQ(o.code, 0) << o;
  EXPECT_NE(o.err.find("step-00000024"), std::string::npos) << o;
  EXPECT_TRUE(tensors(step_folder(world() / "from-run", 8)) ==
              tensors(step_folder(world() / "from-step", 8)));
  fs::remove_all(world() / "parent");
}

// Selection biases and the load fractions of the last step are part of the model's state.
TEST_F(Continued, LoadsRouterState) {
  const Arguments biased = {"model.moe.router={score_function: sigmoid, norm_topk_prob: true}",
                            "model.moe.expert_bias_update_rate=0.01",
                            "model.moe.aux_loss_scope=global_batch"};
  ASSERT_EQ(world().train("biased", biased).code, 0);
  const auto state = weights(step_folder(world() / "biased", 24));
  int biases = 0;
  for (const auto& [name, bytes] : state) biases += name.find("bias") != std::string::npos ? 1 : 0;
  EXPECT_GE(biases, 2);

  const Arguments more = with(biased, {"init.from=biased", "train.train_iters=1",
                                       "optim.lr=1.0e-300", "optim.lr_warmup_iters=0"});
  ASSERT_EQ(world().train("biased-child", more).code, 0);

  EXPECT_EQ(metrics_records(world() / "biased-child").back().at("val_loss").as_double() > 0, true);
  const auto child = weights(step_folder(world() / "biased-child", 1));
  for (const auto& [name, bytes] : state) {
    ASSERT_TRUE(child.contains(name)) << name;
    if (name.find("e_score_correction_bias") == std::string::npos || name.starts_with("balance."))
      continue;
    // One update of 0.01 away, so not the zeros of a new model.
    for (std::size_t i = 0; i < bytes.size(); i += sizeof(float)) {
      float before = 0, after = 0;
      std::memcpy(&before, bytes.data() + i, sizeof before);
      std::memcpy(&after, child.at(name).data() + i, sizeof after);
      EXPECT_NEAR(before, after, 0.0101) << name;
    }
  }
  EXPECT_EQ(world().train("biased-part", with(biased, {"train.max_hours=1e-7"})).code, 75);
  EXPECT_EQ(world().train("biased-part", biased).code, 0);
  expect_same_run(world() / "biased-part", world() / "biased");
}

}  // namespace
}  // namespace grist::test
