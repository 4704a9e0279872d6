// Ranks that die, hang, are stopped or fail: the job ends with the right code, says who it was, and
// goes on afterwards to the same numbers.
#include <signal.h>

#include <thread>

#include "app/support.h"
#include "grist/core/random.h"

namespace grist::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Arguments kSets = {"parallel.deterministic=elastic",
                         "train.global_batch_size=16",
                         "train.train_iters=16",
                         "checkpoint.save_interval=2",
                         "parallel.expert_model_parallel_size=2",
                         "parallel.watchdog_seconds=3"};

class RankFaults : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const Outcome o = world().train("ranks-undisturbed", one_rank());
    if (o.code != 0) throw std::runtime_error(o.err);
  }
  static Arguments one_rank() {
    Arguments sets = kSets;
    sets.emplace_back("parallel.expert_model_parallel_size=1");
    return sets;
  }
  static Arguments train(const std::string& run, const Arguments& more = {}) {
    Arguments sets = kSets;
    sets.insert(sets.end(), more.begin(), more.end());
    return world().train_arguments(run, sets);
  }
  // Waits until rank `rank` lives and the run has reached `step`.
  static int rank_at_step(Child& child, const std::string& run, int rank, int step) {
    for (int i = 0; i < 3000 && child.running(); ++i) {
      const int pid = child.rank_pids()[static_cast<std::size_t>(rank)];
      const std::filesystem::path metrics = world() / run / "metrics.jsonl";
      if (pid > 0 && std::filesystem::exists(metrics) &&
          std::ssize(metrics_lines(world() / run)) >= step)
        return pid;
      std::this_thread::sleep_for(milliseconds(10));
    }
    return 0;
  }
  static void goes_on(const std::string& run, int ranks) {
    const Outcome o = Child(world().path(), train(run), ranks).wait();
    ASSERT_EQ(o.code, 0) << o;
    expect_same_run(world() / run, world() / "ranks-undisturbed");
  }
  static int occurrences(const std::string& text, const std::string& word) {
    int n = 0;
    for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1))
      ++n;
    return n;
  }
};

// R11
TEST_F(RankFaults, ADeadRankIsNamed) {
  for (int round = 0; round < scaled(5); ++round) {
    const std::string run = "dead-" + std::to_string(round);
    const int victim = round % 4;
    Child child(world().path(), train(run, {"train.train_iters=4000"}), 4);
    const int pid = rank_at_step(child, run, victim, 3);
    ASSERT_GT(pid, 0);
    ::kill(pid, SIGKILL);
    const auto killed = std::chrono::steady_clock::now();
    const Outcome o = child.wait();
    EXPECT_TRUE(o.code == 76 || o.code == 137) << o;
    EXPECT_LT(std::chrono::steady_clock::now() - killed, seconds(20)) << o;
    EXPECT_NE(o.err.find("rank " + std::to_string(victim)), std::string::npos) << o;
    EXPECT_NE(o.err.find("pid " + std::to_string(pid)), std::string::npos) << o;
  }
}

// R10: the other kinds of hang are in tests/comm.
TEST_F(RankFaults, AStoppedRankIsNamedAndTheJobEnds) {
  for (int round = 0; round < scaled(5); ++round) {
    const std::string run = "stopped-rank-" + std::to_string(round);
    const int victim = (round + 1) % 4;
    Child child(world().path(), train(run, {"train.train_iters=4000"}), 4);
    const int pid = rank_at_step(child, run, victim, 3);
    ASSERT_GT(pid, 0);
    ::kill(pid, SIGSTOP);
    const Outcome o = child.wait();
    ::kill(pid, SIGKILL);
    EXPECT_EQ(o.code, 76) << o;
    EXPECT_NE(o.err.find("rank " + std::to_string(victim)), std::string::npos) << o;
    EXPECT_NE(o.err.find("step "), std::string::npos) << o;
  }
}

// R1, R7: everything killed at a random moment, then another number of ranks goes on.
TEST_F(RankFaults, KilledJobsGoOnWithOtherRanksAndTheSameBits) {
  const Random random(5, "moments");
  std::uint64_t at = 0;
  int killed = 0;
  for (int round = 0; killed < scaled(8); ++round) {
    ASSERT_LT(round, 60);
    const std::string run = "jobs-killed-" + std::to_string(round);
    for (;;) {
      const int ranks = 2 << random.below(at++, 2);  // 2 or 4
      Child child(world().path(), train(run), ranks);
      if (!child.outlives(milliseconds(300 + random.below(at++, 1500)))) {
        const Outcome o = child.wait();
        ASSERT_EQ(o.code, 0) << o;
        break;
      }
      child.kill_all();
      child.wait();
      ++killed;
    }
    expect_same_run(world() / run, world() / "ranks-undisturbed");
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

// R12: mpirun forwards USR1; TERM goes to the ranks themselves, as srun sends it.
TEST_F(RankFaults, SignalsSaveAndEndWith75) {
  const Random random(6, "moments");
  std::uint64_t at = 0;
  int stopped = 0;
  for (int round = 0; stopped < scaled(6); ++round) {
    ASSERT_LT(round, 60);
    const std::string run = "signalled-" + std::to_string(round);
    for (Outcome o; o.code != 0;) {
      Child child(world().path(), train(run, {"checkpoint.save_interval=0"}), 2);
      if (rank_at_step(child, run, 1, 0) > 0 &&
          child.outlives(milliseconds(random.below(at++, 400)))) {
        if (round % 2 == 0) {
          child.send(SIGUSR1);
        } else {
          const int pid = child.rank_pids()[random.below(at++, 2)];
          if (pid > 0) ::kill(pid, SIGTERM);
        }
      }
      o = child.wait();
      if (o.out.empty()) continue;  // the signal came before a rank could ask for it
      ASSERT_TRUE(o.code == 0 || o.code == 75) << o;
      if (o.code == 75) {
        ++stopped;
        EXPECT_EQ(occurrences(o.out, "exit code 75"), 1) << o;
      }
    }
    expect_same_run(world() / run, world() / "ranks-undisturbed");
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

// R13: slices of one run, as a scheduler gives them.
TEST_F(RankFaults, TwentySlicesAreOneRun) {
  int slices = 0;
  for (Outcome o; o.code != 0; ++slices) {
    ASSERT_LT(slices, 40);
    o = Child(world().path(),
              train("sliced", {"train.max_hours=1e-7", "checkpoint.save_interval=0"}),
              slices % 3 == 0 ? 4 : 2)
            .wait();
    ASSERT_TRUE(o.code == 75 || o.code == 0) << o;
  }
  EXPECT_EQ(slices, 16);  // one step a slice
  expect_same_run(world() / "sliced", world() / "ranks-undisturbed");
}

// An error that only one rank has: said once, by name, and all end with its code.
TEST_F(RankFaults, AFailingSaveIsEveryRanksVerdictAndTrainingGoesOn) {
  const std::string run = "unwritable";
  Child child(world().path(), train(run, {"train.train_iters=4000", "checkpoint.save_interval=50"}),
              4);
  ASSERT_GT(rank_at_step(child, run, 0, 5), 0);
  // The folder's place is taken by a file: no rank can write there.
  world().write(run + "/checkpoints", "in the way");
  for (int i = 0; i < 2000 && child.running() && std::ssize(metrics_lines(world() / run)) < 60; ++i)
    std::this_thread::sleep_for(milliseconds(10));
  ASSERT_TRUE(child.running());
  std::filesystem::remove(world() / run / "checkpoints");
  child.send(SIGUSR1);
  const Outcome o = child.wait();
  EXPECT_EQ(o.code, 75) << o;
  EXPECT_EQ(occurrences(o.err, "was not saved"), 1) << o;
  EXPECT_EQ(saved_steps(world() / run).size(), 1U);
}

}  // namespace
}  // namespace grist::test
