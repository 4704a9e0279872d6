// Ranks that die, hang, are stopped, slow or fail: the job ends with the right code, says who it
// was, and goes on afterwards, with another number of ranks, to the same numbers.
#include <signal.h>

#include <thread>

#include "app/support.h"
#include "grist/core/random.h"

namespace grist::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int kRanks = 8;
const Arguments kSets = {"parallel.deterministic=elastic", "train.global_batch_size=16",
                         "train.train_iters=40", "checkpoint.save_interval=2",
                         "parallel.expert_model_parallel_size=2"};

class RankFaults : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const Outcome o = world().train("ranks-undisturbed", one_rank());
    if (o.code != 0) throw std::runtime_error(o.err);
  }
  static Arguments one_rank(const Arguments& more = {}) {
    Arguments sets = kSets;
    sets.insert(sets.end(), more.begin(), more.end());
    sets.emplace_back("parallel.expert_model_parallel_size=1");
    return sets;
  }
  static Arguments train(const std::string& run, const Arguments& more = {}) {
    Arguments sets = kSets;
    sets.insert(sets.end(), more.begin(), more.end());
    return world().train_arguments(run, sets);
  }
  // Another number of ranks takes the run to its end.
  static void expect_goes_on(const std::string& run, int ranks) {
    const Outcome o = ranks == 1 ? world().train(run, one_rank())
                                 : Child(world().path(), train(run), ranks).wait();
    ASSERT_EQ(o.code, 0) << o;
    expect_same_run(world() / run, world() / "ranks-undisturbed");
  }
  // Waits for a random moment of a job: in every second one after more steps than the run has had,
  // so that a slow machine comes to its end too. False when the job ends before.
  bool reaches_a_moment(Child& child, const std::string& run) {
    const int step = steps_reached(run) + 1 + static_cast<int>(random_.below(at_++, 6));
    if (++jobs_ % 2 == 0 && !reaches_step(child, run, step)) return false;
    return child.outlives(milliseconds(random_.below(at_++, 300)));
  }
  static void expect_names(const Outcome& o, int rank, int pid) {
    const std::string who = "error: rank " + std::to_string(rank) + " (host ";
    EXPECT_EQ(occurrences(o.err, who), 1) << o;
    EXPECT_NE(o.err.find(", pid " + std::to_string(pid) + ") "), std::string::npos) << o;
  }

  Random random_{5, "moments"};
  std::uint64_t at_ = 0;
  int jobs_ = 0;
};

// R11
TEST_F(RankFaults, ADeadRankIsNamedAndOtherRanksGoOn) {
  for (int round = 0; round < scaled(4); ++round) {
    const std::string run = "dead-" + std::to_string(round);
    const int victim = (3 * round) % kRanks;
    Child child(world().path(), train(run), kRanks);
    const int pid = rank_at_step(child, run, victim, 3);
    ASSERT_GT(pid, 0) << child.wait();
    ::kill(pid, SIGKILL);
    const auto killed = std::chrono::steady_clock::now();
    const Outcome o = child.wait();
    EXPECT_TRUE(o.code == 76 || o.code == 137) << o;
    EXPECT_LT(std::chrono::steady_clock::now() - killed, seconds(20)) << o;
    expect_names(o, victim, pid);
    expect_goes_on(run, 1 << round % 3);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  tally(scaled(4), "ranks of eight killed, the job gone on");
}

// R10: the other kinds of hang are in tests/comm.
TEST_F(RankFaults, AStoppedRankIsNamedAndOtherRanksGoOn) {
  for (int round = 0; round < scaled(3); ++round) {
    const std::string run = "stopped-rank-" + std::to_string(round);
    const int victim = (3 * round + 1) % kRanks;
    // Short, but longer than the ranks of a busy machine wait for a core.
    Child child(world().path(), train(run, {"parallel.watchdog_seconds=8"}), kRanks);
    const int pid = rank_at_step(child, run, victim, 3);
    ASSERT_GT(pid, 0) << child.wait();
    ::kill(pid, SIGSTOP);
    const Outcome o = child.wait();
    ::kill(pid, SIGKILL);
    EXPECT_EQ(o.code, 76) << o;
    expect_names(o, victim, pid);
    EXPECT_NE(o.err.find("step "), std::string::npos) << o;
    expect_goes_on(run, 1 << round % 3);
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  tally(scaled(3), "ranks of eight stopped, the job gone on");
}

// R24: a rank that gets a fifth of its time is named within 50 steps, and not ended.
TEST_F(RankFaults, ASlowRankIsNamedAndLeftAlone) {
  for (int round = 0; round < scaled(1); ++round) {
    const std::string run = "slow-" + std::to_string(round);
    const int victim = (round + 3) % 5;
    Child child(
        world().path(),
        world().train_arguments(
            run, {"train.global_batch_size=40", "train.micro_batch_size=8", "data.seq_length=128",
                  "train.train_iters=4000", "checkpoint.save_interval=0"}),
        5);
    const int pid = rank_at_step(child, run, victim, 2);
    ASSERT_GT(pid, 0) << child.wait();
    const int begun = static_cast<int>(std::ssize(metrics_lines(world() / run)));
    for (int i = 0; i < 4000; ++i) {
      ::kill(pid, SIGSTOP);
      std::this_thread::sleep_for(milliseconds(12));
      ::kill(pid, SIGCONT);
      std::this_thread::sleep_for(milliseconds(3));
      if (std::ssize(metrics_lines(world() / run)) > begun + 50) break;
    }
    child.send(SIGUSR1);
    const Outcome o = child.wait();
    EXPECT_EQ(o.code, 75) << o;
    const std::size_t at = o.err.find(": rank " + std::to_string(victim) + " (host ");
    ASSERT_NE(at, std::string::npos) << o;
    EXPECT_NE(o.err.substr(at, 100).find(" is slow: "), std::string::npos) << o;
    const std::size_t step = o.err.rfind("step ", at);
    EXPECT_LE(std::stoi(o.err.substr(step + 5)), begun + 50) << o;
  }
  tally(scaled(1), "slow ranks of five");
}

// R1, R7, R8: everything killed at a random moment, then another number of ranks goes on.
TEST_F(RankFaults, KilledJobsGoOnWithOtherRanksAndTheSameBits) {
  int killed = 0;
  for (int round = 0; killed < scaled(8); ++round) {
    ASSERT_LT(round, 20 + scaled(8));
    const std::string run = "jobs-killed-" + std::to_string(round);
    for (;;) {
      const int ranks = 2 << random_.below(at_++, 3);  // 2, 4 or 8
      Child child(world().path(), train(run), ranks);
      if (killed >= scaled(8) || !reaches_a_moment(child, run)) {
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
  tally(killed, "jobs of 2 to 8 ranks killed");
}

// R12: mpirun forwards USR1; TERM goes to the ranks themselves, as srun sends it.
TEST_F(RankFaults, SignalsSaveAndEndWith75) {
  int stopped = 0;
  for (int round = 0; stopped < scaled(5); ++round) {
    ASSERT_LT(round, 20 + scaled(5));
    const std::string run = "signalled-" + std::to_string(round);
    for (Outcome o; o.code != 0;) {
      Child child(world().path(), train(run, {"checkpoint.save_interval=0"}), kRanks);
      if (stopped < scaled(5) && reaches_a_moment(child, run)) {
        if (round % 2 == 0) {
          child.send(SIGUSR1);
        } else {
          const int pid = child.rank_pids()[random_.below(at_++, kRanks)];
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
  tally(stopped, "jobs of eight ranks stopped by signals");
}

// R13, R8: slices of one run, as a scheduler gives them, each on another number of ranks.
TEST_F(RankFaults, TwentySlicesAreOneRun) {
  const Arguments sets = {"train.train_iters=20"};
  ASSERT_EQ(world().train("whole-of-20", one_rank(sets)).code, 0);
  int slices = 0;
  for (Outcome o; o.code != 0; ++slices) {
    ASSERT_LT(slices, 40);
    Arguments slice = sets;
    slice.insert(slice.end(), {"train.max_hours=1e-7", "checkpoint.save_interval=0"});
    o = Child(world().path(), train("sliced", slice), slices % 5 == 0 ? kRanks : 2 + slices % 2 * 2)
            .wait();
    ASSERT_TRUE(o.code == 75 || o.code == 0) << o;
  }
  EXPECT_EQ(slices, 20);  // one step a slice
  expect_same_run(world() / "sliced", world() / "whole-of-20");
  tally(slices, "slices of one run");
}

}  // namespace
}  // namespace grist::test
