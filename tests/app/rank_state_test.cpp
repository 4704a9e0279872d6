// Checkpoints of many ranks on disks that fail, and shards of them that are damaged: one verdict
// for all ranks, training goes on, and what is loaded is whole.
#include <signal.h>

#include "app/support.h"
#include "grist/core/random.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

constexpr int kRanks = 8;

Arguments elastic(const Arguments& more) {
  Arguments sets = {"parallel.deterministic=elastic", "train.global_batch_size=16",
                    "optim.lr_decay_iters=40", "optim.min_lr=1e-4"};
  sets.insert(sets.end(), more.begin(), more.end());
  return sets;
}

// The run's last step is what one rank, undisturbed, comes to.
void expect_as_one_rank(const std::string& run) {
  const int last = saved_steps(world() / run).back();
  const std::string alone = run + "-alone";
  const Outcome o = world().train(alone, elastic({"train.train_iters=" + std::to_string(last)}));
  ASSERT_EQ(o.code, 0) << o;
  EXPECT_TRUE(tensors(step_folder(world() / run, last)) ==
              tensors(step_folder(world() / alone, last)));
}

// A run of all ranks that saves each tenth step; `spoil` makes saving impossible after step 25,
// `mend` possible again two failures later.
template <class Spoil, class Mend>
void expect_survives(const std::string& run, const Spoil& spoil, const Mend& mend) {
  Child child(world().path(),
              world().train_arguments(
                  run, elastic({"train.train_iters=4000", "checkpoint.save_interval=10"})),
              kRanks);
  ASSERT_TRUE(reaches_step(child, run, 25)) << child.wait();
  spoil();
  const int spoiled = static_cast<int>(std::ssize(metrics_lines(world() / run)));
  ASSERT_TRUE(reaches_step(child, run, spoiled + 25)) << child.wait();
  mend();
  ASSERT_TRUE(reaches_step(child, run, spoiled + 60)) << child.wait();
  child.send(SIGUSR1);
  const Outcome o = child.wait();
  ASSERT_EQ(o.code, 75) << o;
  const int failed = occurrences(o.err, "was not saved");
  EXPECT_GE(failed, 2) << o;
  std::vector<std::string> said = warnings_and_errors(o);
  std::erase_if(said, is_of_repetition);
  EXPECT_EQ(said.size(), static_cast<std::size_t>(failed)) << o;  // one line a save
  for (const std::string& line : said) {
    EXPECT_TRUE(line.starts_with("warning: checkpoint step ")) << line;
    EXPECT_EQ(occurrences(o.err, line.substr(0, line.find(" was not"))), 1) << o;
  }
  EXPECT_GE(std::ssize(saved_steps(world() / run)), 2);
  EXPECT_EQ(world().run({"checkpoint", "verify", run}).code, 0);
  expect_as_one_rank(run);
}

// R6: a file in the folder's place.
TEST(RankDisks, ANameThatCannotBeWrittenIsEveryRanksVerdict) {
  const fs::path at = world() / "unwritable/checkpoints", aside = world() / "unwritable/aside";
  expect_survives(
      "unwritable",
      [&] {
        fs::rename(at, aside);
        world().write("unwritable/checkpoints", "in the way");
      },
      [&] {
        fs::remove(at);
        fs::rename(aside, at);
      });
}

// R6: no space left, then space again.
TEST(RankDisks, AFullDiskIsEveryRanksVerdictAndTheNextSaveWorks) {
  SmallDisk disk(world() / "disk", "12m");
  if (!disk.mounted()) GTEST_SKIP() << "mounting a small file system needs root";
  expect_survives(
      "disk/run", [&] { disk.leave(500); },  // for lines of metrics, not for a checkpoint
      [&] { disk.make_space(); });
}

// R4, R5, R7: a byte of one of eight shards; other numbers of ranks find it and take the step
// before.
TEST(RankDisks, ADamagedShardIsNamedAndTheStepBeforeUsed) {
  const Arguments sets =
      elastic({"train.train_iters=16", "checkpoint.save_interval=4", "checkpoint.keep=3"});
  ASSERT_EQ(world().train("sharded", sets, kRanks).code, 0);
  ASSERT_EQ(world().train("sharded-16", sets).code, 0);
  fs::remove_all(step_folder(world() / "sharded", 16));
  const Random random(8, "damage");
  for (int round = 0; round < scaled(4); ++round) {
    const auto number = static_cast<std::uint64_t>(round);
    const std::string run = "damaged-" + std::to_string(round);
    fs::copy(world() / "sharded", world() / run, fs::copy_options::recursive);
    const std::string shard =
        "shard-0000" + std::to_string(random.below(2 * number, kRanks)) + "-of-00008.safetensors";
    const fs::path file = step_folder(world() / run, 12) / shard;
    flip_byte(file, random.below(2 * number + 1, fs::file_size(file)));

    const int ranks = 1 << round % 4;
    const Outcome o = world().train(run, sets, ranks == 1 ? 0 : ranks);

    EXPECT_EQ(o.code, 0) << o;
    EXPECT_EQ(lines(o.err).size(), 1U) << o;
    for (const std::string word : {"warning: ", "step-00000012", shard.c_str(), "damaged"})
      EXPECT_NE(o.err.find(word), std::string::npos) << word << o;
    EXPECT_NE(o.out.find("resuming at step 8"), std::string::npos) << o;
    expect_same_run(world() / run, world() / "sharded-16");
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  tally(scaled(4), "shards of eight damaged");
}

}  // namespace
}  // namespace grist::test
