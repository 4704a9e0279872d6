// Checkpoints that are damaged, foreign or missing, data that changed under them, and a full disk:
// nothing is lost, nothing half-written, and never silently step 0.
#include <signal.h>

#include <algorithm>
#include <optional>

#include "app/support.h"
#include "grist/ckpt/safetensors.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

// A run of 24 steps that has done 20, with steps 12, 16 and 20 saved; and the whole of it.
class BadState : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(world().train("whole").code, 0);
    fs::remove_all(world() / "part");
    fs::copy(world() / "whole", world() / "part", fs::copy_options::recursive);
    fs::remove_all(step_folder(world() / "part", 24));
    ASSERT_EQ(saved_steps(world() / "part"), (std::vector<int>{16, 20}));
  }
  const fs::path part_ = world() / "part";
};

TEST_F(BadState, DamagedNewestStepFallsBackLoudly) {
  flip_byte(shard_of(part_, 20), 60000);

  const Outcome verify = world().run({"checkpoint", "verify", "part"});
  EXPECT_EQ(verify.code, 65) << verify;
  EXPECT_NE((verify.out + verify.err).find("shard-00000-of-00001.safetensors"), std::string::npos);
  const Outcome o = world().train("part");

  EXPECT_EQ(o.code, 0) << o;
  ASSERT_EQ(lines(o.err).size(), 1U) << o;
  for (const char* word : {"warning: ", "step-00000020", "shard-00000-of-00001", "damaged"})
    EXPECT_NE(o.err.find(word), std::string::npos) << word << o;
  EXPECT_NE(o.out.find("resuming at step 16"), std::string::npos) << o;
  expect_same_run(part_, world() / "whole");
  EXPECT_EQ(world().run({"checkpoint", "verify", "part"}).code, 0);
}

TEST_F(BadState, ADamagedStepNeverPushesAGoodOneOut) {
  flip_byte(shard_of(part_, 20), 60000);

  const Arguments to_18 = {"checkpoint.keep=1", "train.train_iters=18", "optim.lr_decay_iters=24"};
  ASSERT_EQ(world().train("part", to_18).code, 0);

  EXPECT_EQ(saved_steps(part_), (std::vector<int>{18, 20}));
  const Outcome again = world().train("part", {"checkpoint.keep=1"});
  EXPECT_EQ(again.code, 0) << again;
  EXPECT_NE(again.out.find("resuming at step 18"), std::string::npos) << again;
  EXPECT_EQ(saved_steps(part_), (std::vector<int>{24}));
  EXPECT_TRUE(tensors(step_folder(part_, 24)) == tensors(step_folder(world() / "whole", 24)));
}

TEST_F(BadState, AChosenStepIsGoneBackToAndNothingIsLost) {
  const Arguments stopped = {"checkpoint.resume_step=16", "train.train_iters=18",
                             "optim.lr_decay_iters=24"};
  const Outcome back = world().train("part", stopped);

  ASSERT_EQ(back.code, 0) << back;
  EXPECT_NE(back.out.find("resuming at step 16"), std::string::npos) << back;
  EXPECT_NE(back.out.find("steps 20 are set aside in part/checkpoints/aside-1"), std::string::npos)
      << back;
  EXPECT_EQ(saved_steps(part_), (std::vector<int>{16, 18}));
  EXPECT_EQ(world().run({"checkpoint", "verify", "part/checkpoints/aside-1"}).code, 0);

  // The same command does not go back again: what it saved came of step 16.
  const Outcome on = world().train("part", {"checkpoint.resume_step=16"});
  EXPECT_NE(on.out.find("resuming at step 18"), std::string::npos) << on;
  EXPECT_EQ(on.code, 0) << on;
  EXPECT_TRUE(tensors(step_folder(part_, 24)) == tensors(step_folder(world() / "whole", 24)));
}

TEST_F(BadState, AChosenStepMustBeThere) {
  const std::vector<std::string> before = tree(part_);
  expect_refusal(world().train("part", {"checkpoint.resume_step=17"}), 66,
                 {"part/checkpoints", "no step 17", "16, 20"});
  expect_refusal(world().train("fresh", {"checkpoint.resume_step=17"}), 66, {"there are none"});
  expect_refusal(world().train("part", {"checkpoint.resume_step=16", "checkpoint.resume=never"}),
                 78, {"no effect with resume never"});
  flip_byte(shard_of(part_, 16), 60000);
  EXPECT_EQ(world().train("part", {"checkpoint.resume_step=16"}).code, 65);
  EXPECT_EQ(tree(part_), before);
}

TEST_F(BadState, GenerateTakesTheStepBefore) {
  // In the weights of the model, so that it is among what generation reads.
  const SafetensorsReader shard(shard_of(part_, 20));
  flip_byte(shard.path(), shard.at("model.embed_tokens.weight").begin + 100);
  const Arguments arguments = {"generate",      "part", "--prompt",     "ab",
                               "--temperature", "0",    "--max-tokens", "12"};

  const Outcome o = world().run(arguments);

  EXPECT_EQ(o.code, 0) << o;
  EXPECT_EQ(lines(o.err).size(), 1U) << o;
  EXPECT_NE(o.err.find("step-00000020"), std::string::npos) << o;
  Arguments older = arguments;
  older[1] = "part/checkpoints/step-00000016";
  EXPECT_EQ(world().run(older).out, o.out);
  older[1] = "part/checkpoints/step-00000020";
  EXPECT_EQ(world().run(older).code, 65);
}

TEST_F(BadState, DamagedManifestsAndTextsFallBackToo) {
  for (const char* file : {"manifest.json", "config.yaml", "tokenizer.json"}) {
    SetUp();
    flip_byte(step_folder(part_, 20) / file, 40);
    const Outcome o = world().train("part");
    EXPECT_EQ(o.code, 0) << o;
    EXPECT_NE(o.err.find(file), std::string::npos) << o;
    expect_same_run(part_, world() / "whole");
  }
  SetUp();
  fs::resize_file(shard_of(part_, 20), 1000);
  EXPECT_EQ(world().train("part").code, 0);
  expect_same_run(part_, world() / "whole");
  SetUp();
  fs::remove(shard_of(part_, 20));
  EXPECT_EQ(world().train("part").code, 0);
  expect_same_run(part_, world() / "whole");
}

TEST_F(BadState, NoUsableStepIsNeverStepZero) {
  for (const int step : {16, 20}) flip_byte(shard_of(part_, step), 60000);
  const std::vector<std::string> before = tree(part_);
  const std::string metrics = read_text(part_ / "metrics.jsonl");

  const Outcome o = world().train("part");

  EXPECT_EQ(o.code, 65) << o;
  EXPECT_EQ(lines(o.err).size(), 3U) << o;
  EXPECT_TRUE(lines(o.err).back().starts_with("error: ")) << o;
  EXPECT_NE(o.err.find("refusing to start from step 0"), std::string::npos) << o;
  EXPECT_EQ(tree(part_), before);
  EXPECT_EQ(read_text(part_ / "metrics.jsonl"), metrics);
  EXPECT_EQ(world().run({"generate", "part", "--prompt", "ab"}).code, 65);
}

TEST_F(BadState, ResumeRequiredNeedsACheckpoint) {
  expect_refusal(world().train("fresh", {"checkpoint.resume=required"}), 66,
                 {"fresh", "resume is required"});
  EXPECT_FALSE(fs::exists(world() / "fresh"));
  EXPECT_EQ(world().train("part", {"checkpoint.resume=required"}).code, 0);
  expect_same_run(part_, world() / "whole");
}

TEST_F(BadState, CheckpointsOfAnotherArchitecture) {
  // The folder's own record is gone, so only the tensors can tell.
  fs::remove(part_ / "config.yaml");
  const std::vector<std::string> before = tree(part_);
  expect_refusal(world().train("part", {"model.hidden_size=48"}), 65, {"another architecture"});
  EXPECT_EQ(tree(part_), before);

  expect_refusal(world().train("child", {"init.from=whole", "model.intermediate_size=128"}), 65,
                 {"another architecture"});
  expect_refusal(world().train("child", {"init.from=whole", "model.rope_theta=5000"}), 65,
                 {"another architecture", "model.rope_theta", "10000", "5000"});
  expect_refusal(world().train("child", {"init.from=nowhere"}), 66, {"nowhere"});
  EXPECT_FALSE(fs::exists(world() / "child"));
}

TEST_F(BadState, LostStepsAreNotStepZero) {
  std::vector<fs::path> steps;
  for (const auto& entry : fs::directory_iterator(part_ / "checkpoints"))
    if (entry.is_directory()) steps.push_back(entry.path());
  for (const fs::path& step : steps) fs::remove_all(step);

  expect_refusal(world().train("part", {}), 65, {"part", "no step is left"});
}

// Only a record: the checkpoint has its own.
TEST_F(BadState, UnreadableConfigOfTheLastStartIsPassedOver) {
  File::open_append(part_ / "config.yaml").append("garbage: [");
  const Outcome o = world().train("part");
  EXPECT_EQ(o.code, 0) << o;
  EXPECT_EQ(lines(o.err).size(), 1U) << o;
  EXPECT_TRUE(o.err.starts_with("warning: part/config.yaml:")) << o;
  expect_same_run(part_, world() / "whole");
}

TEST_F(BadState, ChangedDataIsAnErrorThatSaysWhatToDo) {
  const std::vector<std::string> before = tree(part_);
  expect_refusal(world().train("part", {"data.train=[{path: validation}]"}), 65,
                 {"data.train[0]", "8 documents", "60 documents", "Put it back", "init.from"});
  EXPECT_EQ(world().train("part", {"seed=8"}).code, 78);
  EXPECT_EQ(tree(part_), before);
  EXPECT_EQ(world().train("part").code, 0);
  expect_same_run(part_, world() / "whole");
}

TEST_F(BadState, MovedDataIsTheSameData) {
  for (const char* end : {".bin", ".idx", ".json"})
    fs::copy_file((world() / "train").string() + end, (world() / "moved").string() + end,
                  fs::copy_options::overwrite_existing);
  const Outcome o = world().train("part", {"data.train=[{path: moved}]"});
  EXPECT_EQ(o.code, 0) << o;
  expect_same_run(part_, world() / "whole");
}

class FullDisk : public BadState {
 protected:
  void SetUp() override {
    BadState::SetUp();
    disk_.emplace(at_, "4m");
    if (!disk_->mounted()) GTEST_SKIP() << "mounting a small file system needs root";
  }
  const fs::path at_ = world() / "disk";
  std::optional<SmallDisk> disk_;
};

TEST_F(FullDisk, FailedSaveKeepsTheStepBefore) {
  ASSERT_EQ(world().train("disk/run", {"train.train_iters=8", "optim.lr_decay_iters=24"}).code, 0);
  const auto run = at_ / "run";
  ASSERT_EQ(saved_steps(run).back(), 8);
  const auto before = tensors(step_folder(run, 8));
  disk_->leave(400);  // enough for lines of metrics, not for a checkpoint

  const Outcome o = world().train("disk/run", {"checkpoint.on_error=stop"});

  expect_refusal(o, 74, {"checkpoint step 12 was not saved", "no space left", "disk/run"});
  EXPECT_EQ(saved_steps(run).back(), 8);
  for (const std::string& name : tree(run / "checkpoints"))
    EXPECT_EQ(name.find(".tmp-"), std::string::npos) << name;
  EXPECT_EQ(world().run({"checkpoint", "verify", "disk/run"}).code, 0);
  EXPECT_TRUE(tensors(step_folder(run, 8)) == before);

  disk_->make_space();
  const Outcome again = world().train("disk/run");
  EXPECT_EQ(again.code, 0) << again;
  EXPECT_NE(again.out.find("resuming at step 8"), std::string::npos) << again;
  EXPECT_EQ(metrics_lines(run).back(), metrics_lines(world() / "whole").back());
  EXPECT_TRUE(tensors(step_folder(run, 24)) == tensors(step_folder(world() / "whole", 24)));
}

// Checkpoints fail, the run goes on; only the last one must succeed.
TEST_F(FullDisk, TrainingGoesOnWithoutCheckpoints) {
  ASSERT_EQ(world().train("disk/run", {"train.train_iters=8", "optim.lr_decay_iters=24"}).code, 0);
  disk_->leave(400);
  const Outcome o = world().train("disk/run");
  EXPECT_EQ(o.code, 74) << o;
  const std::vector<std::string> said = lines(o.err);
  ASSERT_EQ(said.size(), 4U) << o;
  for (int i = 0; i < 3; ++i) {
    const std::string step = "warning: checkpoint step " + std::to_string(12 + 4 * i);
    EXPECT_TRUE(said[static_cast<std::size_t>(i)].starts_with(step + " was not saved")) << o;
  }
  EXPECT_TRUE(said[3].starts_with("error: checkpoint step 24 was not saved")) << o;
  EXPECT_EQ(saved_steps(at_ / "run").back(), 8);
  EXPECT_EQ(metrics_lines(at_ / "run").back(), metrics_lines(world() / "whole").back());
}

// Nor do metrics, TensorBoard or config.yaml end it; what could not be written comes later.
TEST_F(FullDisk, NotAByteLeftEndsNoRunThatGoesOn) {
  static constexpr const char* kFiles[] = {"config.yaml", "metrics.jsonl", "tensorboard"};
  Arguments sets = {"train.eval_interval=0", "train.train_iters=8"};
  ASSERT_EQ(world().train("disk/run", sets).code, 0);
  const fs::path metrics = at_ / "run/metrics.jsonl";
  const auto before = fs::file_size(metrics);
  disk_->leave(0);
  sets = {"train.eval_interval=0", "train.train_iters=1000000", "log.tensorboard=true",
          "checkpoint.save_interval=0"};
  Child child(world().path(), world().train_arguments("disk/run", sets));
  const auto warned_of_all = [&] {
    const std::string said = child.warnings_so_far();
    return std::ranges::all_of(kFiles,
                               [&](const char* file) { return said.find(file) != said.npos; });
  };
  for (int i = 0; i < 1200 && !warned_of_all(); ++i)
    ASSERT_TRUE(child.outlives(std::chrono::milliseconds(50))) << child.wait();
  disk_->make_space();
  for (int i = 0; i < 600 && fs::file_size(metrics) < before + 20'000; ++i)
    child.outlives(std::chrono::milliseconds(50));
  child.send(SIGTERM);
  const Outcome o = child.wait();

  EXPECT_EQ(o.code, 75) << o;
  std::vector<std::string> said = lines(o.err);
  std::erase_if(said, is_of_repetition);
  EXPECT_EQ(said.size(), 3U) << o;
  for (const char* file : kFiles)
    EXPECT_EQ(std::count_if(said.begin(), said.end(),
                            [&](const std::string& line) {
                              return line.starts_with("warning: ") &&
                                     line.find(file) != std::string::npos;
                            }),
              1)
        << file << o;
  std::int64_t step = 0;
  for (const Json& r : metrics_records(at_ / "run")) {
    if (r.find("val_loss") != nullptr) continue;
    ASSERT_EQ(r.at("step").as_int(), ++step);
  }
  EXPECT_GT(step, 8);
}

TEST_F(FullDisk, NotAByteLeftAtTheStart) {
  disk_->leave(0);
  const Outcome o = world().train("disk/run");
  EXPECT_EQ(lines(o.err).size(), 1U) << o;
  EXPECT_EQ(o.code, 74) << o;
  EXPECT_TRUE(saved_steps(at_ / "run").empty());
  disk_->make_space();
  EXPECT_EQ(world().train("disk/run").code, 0);
  expect_same_run(at_ / "run", world() / "whole");
}

}  // namespace
}  // namespace grist::test
