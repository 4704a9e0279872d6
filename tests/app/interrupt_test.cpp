// Runs that are killed, stopped by signals, or out of time: started again, they end with the same
// numbers as a run that nobody disturbed.
#include <signal.h>
#include <unistd.h>

#include "app/support.h"
#include "grist/core/random.h"

namespace grist::test {
namespace {

using std::chrono::microseconds;

class Interrupted : public ::testing::Test {
 protected:
  // The undisturbed run, and how long it takes.
  void undisturbed(const Arguments& sets) {
    sets_ = sets;
    for (const auto& entry : std::filesystem::directory_iterator(world().path())) {
      const std::string name = entry.path().filename().string();
      for (const char* run : {"undisturbed", "killed-", "stopped-", "validating-", "limited"}) {
        if (name.starts_with(run)) std::filesystem::remove_all(entry.path());
      }
    }
    const auto begin = std::chrono::steady_clock::now();
    const Outcome o = world().train("undisturbed", sets_);
    time_ = std::chrono::duration_cast<microseconds>(std::chrono::steady_clock::now() - begin);
    ASSERT_EQ(o.code, 0) << o;
  }
  microseconds moment() {
    return microseconds(random_.below(at_++, static_cast<std::uint64_t>(time_.count())));
  }
  // Starts the run, sends the signal at a random moment. The outcome of that start.
  Outcome disturb(const std::string& run, int signal) {
    Child child(world().path(), world().train_arguments(run, sets_));
    if (child.outlives(moment())) child.send(signal);
    return child.wait();
  }
  void kill_until_done(int kills);
  void stop_until_done(int signal, int stops);

  Arguments sets_;
  microseconds time_{0};
  Random random_{2026, "moments"};
  std::uint64_t at_ = 0;
};

void Interrupted::kill_until_done(int kills) {
  for (int round = 0, killed = 0; killed < kills; ++round) {
    ASSERT_LT(round, 10 * kills) << "too few of them were killed";
    const std::string run = "killed-" + std::to_string(round);
    for (;;) {
      const Outcome o = disturb(run, SIGKILL);
      if (o.code == 0) break;
      ASSERT_EQ(o.signal, SIGKILL) << o;
      ++killed;
    }
    expect_same_run(world() / run, world() / "undisturbed");
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  tally(kills, "runs of one rank killed");
}

TEST_F(Interrupted, KilledAtRandomMoments) {
  ASSERT_NO_FATAL_FAILURE(undisturbed({}));
  kill_until_done(scaled(20));
}

TEST_F(Interrupted, KilledAtRandomMomentsWhileItSavesAfterEachStep) {
  ASSERT_NO_FATAL_FAILURE(undisturbed({"checkpoint.save_interval=1", "train.train_iters=16"}));
  kill_until_done(scaled(20));
  EXPECT_EQ(world().run({"checkpoint", "verify", "killed-0"}).code, 0);
  for (const std::string& name : tree(world() / "killed-0/checkpoints"))
    EXPECT_EQ(name.find(".tmp-"), std::string::npos) << name;
}

void Interrupted::stop_until_done(int signal, int stops) {
  for (int round = 0, stopped = 0; stopped < stops; ++round) {
    ASSERT_LT(round, 10 * stops) << "too few of them were stopped";
    const std::string run = "stopped-" + std::to_string(round);
    for (Outcome o; o.code != 0;) {
      o = disturb(run, signal);
      if (o.signal == signal) {  // before the program could ask for the signal
        ASSERT_EQ(o.out, "");
        continue;
      }
      ASSERT_TRUE(o.code == 0 || o.code == 75) << o;
      ASSERT_EQ(o.err, "");
      if (o.code == 75) {
        ++stopped;
        ASSERT_NE(o.out.find("stopped"), std::string::npos) << o;
        ASSERT_NE(o.out.find("exit code 75"), std::string::npos) << o;
      }
    }
    expect_same_run(world() / run, world() / "undisturbed");
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  tally(stops, "runs of one rank stopped by signals");
}

TEST_F(Interrupted, StoppedBySigterm) {
  ASSERT_NO_FATAL_FAILURE(undisturbed({}));
  stop_until_done(SIGTERM, scaled(8));
}

TEST_F(Interrupted, StoppedBySigusr1) {
  ASSERT_NO_FATAL_FAILURE(undisturbed({"checkpoint.save_interval=0"}));
  stop_until_done(SIGUSR1, scaled(8));
}

// Nearly all of the time goes into validation here.
TEST_F(Interrupted, StoppedInsideValidation) {
  ASSERT_NO_FATAL_FAILURE(
      undisturbed({"train.eval_interval=1", "train.train_iters=4",
                   "data.validation=[{path: train, name: a}, {path: train, name: b}, {path: train, "
                   "name: c}, {path: train, name: d}]"}));
  int inside = 0;
  for (int round = 0; inside < 2; ++round) {
    ASSERT_LT(round, 60);
    const std::string run = "validating-" + std::to_string(round);
    for (Outcome o; o.code != 0;) {
      o = disturb(run, SIGTERM);
      if (o.code != 75 || saved_steps(world() / run).empty()) continue;
      const int step = saved_steps(world() / run).back();
      const Json state = manifest_state(step_folder(world() / run, step));
      if (step > 0 && state.at("counters").at("validated_step").as_int() < step) ++inside;
    }
    expect_same_run(world() / run, world() / "undisturbed");
    ASSERT_FALSE(HasFailure());
  }
}

TEST_F(Interrupted, SigintStopsLikeSigterm) {
  ASSERT_NO_FATAL_FAILURE(undisturbed({}));
  stop_until_done(SIGINT, 1);
}

TEST_F(Interrupted, AClosedTerminalStopsLikeSigterm) {
  ASSERT_NO_FATAL_FAILURE(undisturbed({}));
  stop_until_done(SIGHUP, 1);
}

// The reader has what it wanted; the run trains, saves and is no error.
TEST_F(Interrupted, AReaderThatGoesEndsNothing) {
  const std::string command = "cd '" + world().path().string() + "' && bash -o pipefail -c \"" +
                              GRIST_BINARY +
                              " train tiny.yaml --set run.dir=piped --set train.train_iters=4 "
                              "--set log.interval=1 2> piped.err | head -n 1 > piped.out\"";
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(saved_steps(world() / "piped").back(), 4);
  EXPECT_EQ(read_text(world() / "piped.err"), "");
}

// Full disk behind standard output: lines are missing there, which is said once.
TEST_F(Interrupted, LinesThatCannotBePrintedEndNothing) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  const std::string command = "cd '" + world().path().string() + "' && " + GRIST_BINARY +
                              " train tiny.yaml --set run.dir=unheard --set train.train_iters=4 "
                              "> /dev/full 2> unheard.err";
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(saved_steps(world() / "unheard").back(), 4);
  const std::string said = read_text(world() / "unheard.err");
  EXPECT_TRUE(said.starts_with("warning: standard output: write failed: ")) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

TEST_F(Interrupted, TimeLimitSavesAndEachStartMakesProgress) {
  ASSERT_NO_FATAL_FAILURE(undisturbed({"train.train_iters=5", "train.eval_interval=2"}));

  for (int step = 1; step < 5; ++step) {
    sets_.emplace_back("train.max_hours=1e-7");
    const Outcome o = world().train("limited", sets_);
    sets_.pop_back();
    ASSERT_EQ(o.code, 75) << o;
    EXPECT_NE(o.out.find("train.max_hours"), std::string::npos);
    ASSERT_EQ(saved_steps(world() / "limited").back(), step);
  }
  EXPECT_EQ(world().train("limited", sets_).code, 0);
  expect_same_run(world() / "limited", world() / "undisturbed");
}

// Ten thousand micro-batches a step: a stop does not wait for the last of them.
TEST_F(Interrupted, StopsInsideALongStep) {
  Child child(world().path(), world().train_arguments("long", {"train.global_batch_size=20000"}));
  while (child.running() && !std::filesystem::exists(world() / "long/metrics.jsonl"))
    child.outlives(microseconds(2000));
  ASSERT_TRUE(child.outlives(microseconds(300000)));
  child.send(SIGTERM);
  const Outcome o = child.wait();

  EXPECT_EQ(o.code, 75) << o;
  EXPECT_EQ(saved_steps(world() / "long"), std::vector<int>{0});
  EXPECT_TRUE(metrics_records(world() / "long").empty());
}

// Files that were read at the start may go.
TEST_F(Interrupted, TokenizerFileIsNotNeededAfterTheStart) {
  std::filesystem::copy_file(world() / "tokenizer/tokenizer.json", world() / "gone.json");
  Child child(world().path(),
              world().train_arguments("undisturbed-by-that",
                                      {"data.tokenizer=gone.json", "train.train_iters=100000",
                                       "checkpoint.save_interval=0"}));
  while (child.running() && !std::filesystem::exists(world() / "undisturbed-by-that/metrics.jsonl"))
    child.outlives(microseconds(2000));
  std::filesystem::remove(world() / "gone.json");
  child.send(SIGTERM);
  const Outcome o = child.wait();
  EXPECT_EQ(o.code, 75) << o.err;
  EXPECT_EQ(world().run({"generate", "undisturbed-by-that", "--prompt", "ab"}).code, 0);
}

// What a killed run wrote behind its last checkpoint is kept beside.
TEST_F(Interrupted, LinesBehindTheCheckpointAreKeptAside) {
  ASSERT_EQ(world().train("tail", {"train.train_iters=8"}).code, 0);
  const auto run = world() / "tail";
  const std::string extra = "{\"step\": 9, \"loss\": 1.0}\n";
  File::open_append(run / "metrics.jsonl").append(extra);

  ASSERT_EQ(world().train("tail", {"train.train_iters=9"}).code, 0);

  EXPECT_EQ(read_text(run / "metrics.jsonl.tail-1"), extra);
  EXPECT_EQ(metrics_records(run).back().at("step").as_int(), 9);
}

}  // namespace
}  // namespace grist::test
