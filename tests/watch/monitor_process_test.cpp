// Monitors in real processes, which are killed, stopped and stuck: the right rank must be named on
// one line, and every process that can must end with code 76 by itself.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <thread>

#include "grist/watch/monitor.h"
#include "support/scale.h"

namespace grist::watch {
namespace {

constexpr int kRanks = 5;
constexpr double kWatchdog = 1.5;  // seconds
constexpr int kFaultStep = 30;
constexpr int kStillRunning = -1;
#ifdef __SANITIZE_THREAD__
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

void sleep_ms(int ms) {
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

// Memory that the processes of a job share: a board for texts, and a barrier.
struct Shared {
  struct Note {
    std::atomic<bool> there;
    char text[256];
  };
  Note notes[2][kRanks];
  std::atomic<int> arrived[100000];  // ranks that have come to the n-th barrier
};

class Rank {  // inside a child
 public:
  Rank(Shared& shared, int rank) : shared_(shared), rank_(rank) {}

  Monitor::Member member() {
    return {rank_, kRanks, activity_, [this, round = 0](const std::string& text) mutable {
              return all_gather(round++, text);
            }};
  }
  comm::Activity& activity() { return *activity_; }

  void barrier() {
    activity_->operations += 1;
    activity_->waits += 1;
    activity_->waiting += 1;
    std::atomic<int>& arrived = shared_.arrived[number_++];
    arrived += 1;
    while (arrived < kRanks) sleep_ms(1);
    activity_->waiting -= 1;
    activity_->beat();
  }
  void step(int number) {
    activity_->step = number;
    activity_->enter("forward");
    sleep_ms(2);
    barrier();
  }

 private:
  std::vector<std::string> all_gather(int round, const std::string& text) {
    std::strncpy(shared_.notes[round][rank_].text, text.c_str(), sizeof(Shared::Note::text) - 1);
    shared_.notes[round][rank_].there = true;
    std::vector<std::string> all;
    for (auto& note : shared_.notes[round]) {
      while (!note.there) sleep_ms(1);
      all.emplace_back(note.text);
    }
    return all;
  }

  Shared& shared_;
  int rank_;
  int number_ = 0;
  std::shared_ptr<comm::Activity> activity_ = std::make_shared<comm::Activity>();
};

// A job of forked processes; their stderr is kept.
class Job {
 public:
  using Body = std::function<void(int rank, Rank&, Monitor&)>;

  explicit Job(const Body& body) {
    void* memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared_ = new (memory) Shared{};
    EXPECT_EQ(pipe(pipe_), 0);
    for (int rank = 0; rank < kRanks; ++rank) {
      pids_[rank] = fork();
      if (pids_[rank] == 0) run_child(rank, body);
      statuses_[rank] = kStillRunning;
    }
    close(pipe_[1]);
  }
  ~Job() {
    for (int rank = 0; rank < kRanks; ++rank) kill_rank(rank);
    munmap(shared_, sizeof(Shared));
    close(pipe_[0]);
  }

  pid_t pid(int rank) const { return pids_[rank]; }
  void signal(int rank, int number) const { kill(pids_[rank], number); }
  void stop(int rank) const {  // returns when all of it stands still
    int status = 0;
    signal(rank, SIGSTOP);
    waitpid(pids_[rank], &status, WUNTRACED);
  }
  // Exit code, or 128 + signal, or kStillRunning.
  int status(int rank) const { return statuses_[rank]; }
  const std::string& output() const { return output_; }

  // Until all but `except` have ended, or `seconds` have passed.
  void wait(double seconds, int except = -1) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < end) {
      read_output(20);
      bool all = true;
      for (int rank = 0; rank < kRanks; ++rank) {
        reap(rank, WNOHANG);
        all = all && (rank == except || statuses_[rank] != kStillRunning);
      }
      if (all) break;
    }
    read_output(0);
  }

  // One line, about that rank; every other rank has ended with 76.
  void expect_named(int rank, const std::string& what) {
    std::size_t lines = 0;
    for (std::size_t at = 0; (at = output_.find("error: ", at)) != std::string::npos; ++at) ++lines;
    EXPECT_EQ(lines, 1U) << output_;
    const std::string begin = "error: rank " + std::to_string(rank) + " (host ";
    EXPECT_NE(output_.find(begin), std::string::npos) << output_;
    EXPECT_NE(output_.find(", pid " + std::to_string(pids_[rank]) + ") " + what), std::string::npos)
        << output_;
    for (int r = 0; r < kRanks; ++r) {
      if (r == rank) continue;
      EXPECT_EQ(statuses_[r], 76) << "rank " << r;
    }
  }

 private:
  [[noreturn]] void run_child(int rank, const Body& body) {
    dup2(pipe_[1], STDERR_FILENO);
    close(pipe_[0]);
    close(pipe_[1]);
    Rank self(*shared_, rank);
    {
      Monitor monitor(self.member(), {.watchdog_seconds = kWatchdog});
      body(rank, self, monitor);
    }
    _exit(0);
  }
  void reap(int rank, int flags) {
    int status = 0;
    if (statuses_[rank] != kStillRunning || waitpid(pids_[rank], &status, flags) != pids_[rank])
      return;
    statuses_[rank] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  void kill_rank(int rank) {
    if (statuses_[rank] != kStillRunning) return;
    kill(pids_[rank], SIGKILL);
    reap(rank, 0);
  }
  void read_output(int ms) {
    pollfd p{pipe_[0], POLLIN, 0};
    char buffer[4096];
    while (poll(&p, 1, ms) > 0 && (p.revents & POLLIN) != 0) {
      const ssize_t n = read(pipe_[0], buffer, sizeof buffer);
      if (n <= 0) return;
      output_.append(buffer, static_cast<std::size_t>(n));
    }
    if ((p.revents & POLLHUP) != 0) sleep_ms(ms);
  }

  Shared* shared_ = nullptr;
  int pipe_[2] = {};
  pid_t pids_[kRanks] = {};
  int statuses_[kRanks] = {};
  std::string output_;
};

// A job in which `fault` happens on one rank at kFaultStep.
Job faulty_job(int culprit, const std::function<void(Rank&)>& fault) {
  return Job([=](int rank, Rank& self, Monitor&) {
    for (int i = 0; i < 100000; ++i) {
      if (rank == culprit && i == kFaultStep) {
        self.activity().step = i;
        self.activity().enter("backward");
        // The monitor tells rank 0 where this rank is.
        for (int t = 0; t < 40; ++t) {
          sleep_ms(10);
          self.activity().beat();
        }
        fault(self);
      }
      self.step(i);
    }
  });
}

[[noreturn]] void loop_for_ever() {
  for (std::atomic<int> i = 0;;) i += 1;
}

TEST(MonitorProcesses, AKilledRankIsNamed) {
  for (int round = 0; round < test::scaled(4); ++round) {
    const int culprit = 1 + round % 4;
    Job job = faulty_job(culprit, [](Rank&) { raise(SIGKILL); });
    job.wait(20);
    job.expect_named(culprit, "died, last seen at step 30 in backward; ");
    EXPECT_EQ(job.status(culprit), 128 + SIGKILL);
  }
  test::tally(test::scaled(4), "ranks killed (monitor)");
}

TEST(MonitorProcesses, LosingRankZeroIsSaidByOne) {
  for (int round = 0; round < test::scaled(3); ++round) {
    Job job = faulty_job(0, [](Rank&) { raise(SIGKILL); });
    job.wait(20);
    job.expect_named(0, "died; ");
  }
  test::tally(test::scaled(3), "ranks killed (monitor)");
}

// Others die with it; who lives says it once, though the dying may still look alive.
TEST(MonitorProcesses, LosingRankZeroAndOthersIsSaidByOneThatLives) {
  for (int round = 0; round < test::scaled(3); ++round) {
    Job job = faulty_job(0, [](Rank&) { sleep_ms(1'000'000); });
    sleep_ms(500);
    for (const int rank : {0, 1, 2}) job.stop(rank);  // so that rank 0 names nobody
    for (const int rank : {2, 1, 0}) job.signal(rank, SIGKILL);
    job.wait(20);
    EXPECT_EQ(job.output().find("error: rank 0 (host "), 0U) << job.output();
    EXPECT_EQ(job.output().find("error: ", 1), std::string::npos) << job.output();
    for (const int rank : {3, 4}) EXPECT_EQ(job.status(rank), 76);
  }
  test::tally(test::scaled(3), "ranks killed (monitor)");
}

// A stopped rank cannot speak, and must not keep the others from it.
TEST(MonitorProcesses, LosingRankZeroWhileAnotherIsStoppedIsSaid) {
  Job job = faulty_job(0, [](Rank&) { sleep_ms(1'000'000); });
  sleep_ms(500);
  job.stop(1);
  job.signal(0, SIGKILL);
  job.wait(20, 1);
  EXPECT_EQ(job.output().find("error: rank 0 (host "), 0U) << job.output();
  for (const int rank : {2, 3, 4}) EXPECT_EQ(job.status(rank), 76);
}

TEST(MonitorProcesses, AStoppedRankIsNamed) {
  for (int round = 0; round < test::scaled(3); ++round) {
    const int culprit = std::array{0, 1, 4}[round % 3];
    Job job = faulty_job(culprit, [](Rank&) { raise(SIGSTOP); });
    job.wait(20, culprit);
    job.expect_named(culprit, "is stopped or its machine is lost: ");
    EXPECT_EQ(job.status(culprit), kStillRunning);
  }
  test::tally(test::scaled(3), "ranks hanging (monitor)");
}

TEST(MonitorProcesses, AnEndlessLoopIsNamedAndShown) {
  for (int round = 0; round < test::scaled(2); ++round) {
    const int culprit = round % 2 == 0 ? 0 : 3;
    Job job = faulty_job(culprit, [](Rank&) { loop_for_ever(); });
    job.wait(20);
    job.expect_named(culprit, "hangs: no sign of life for ");
    EXPECT_EQ(job.status(culprit), 76);
    EXPECT_NE(job.output().find("at step 30 in backward after 30 operations; ranks "),
              std::string::npos)
        << job.output();
    for (int rank = 0; rank < kRanks; ++rank)  // the main thread's stack, on every rank
      EXPECT_NE(job.output().find("rank " + std::to_string(rank) + ", thread " +
                                  std::to_string(job.pid(rank)) + " ("),
                std::string::npos)
          << job.output();
    if (kThreadSanitizer) continue;  // it keeps signals from busy threads
    EXPECT_EQ(job.output().find("no answer"), std::string::npos) << job.output();
  }
  test::tally(test::scaled(2), "ranks hanging (monitor)");
}

TEST(MonitorProcesses, ABlockedReadIsNamed) {
  for (int round = 0; round < test::scaled(2); ++round) {
    const int culprit = round % 2 == 0 ? 2 : 4;
    Job job = faulty_job(culprit, [](Rank&) {
      int ends[2];
      char byte;
      if (pipe(ends) == 0 && read(ends[0], &byte, 1) < 0) return;
    });
    job.wait(20);
    job.expect_named(culprit, "hangs: ");
    EXPECT_EQ(job.status(culprit), 76);
  }
  test::tally(test::scaled(2), "ranks hanging (monitor)");
}

TEST(MonitorProcesses, ASleepIsNamed) {
  for (int round = 0; round < test::scaled(1); ++round) {
    Job job = faulty_job(1, [](Rank&) { sleep_ms(1'000'000); });
    job.wait(20);
    job.expect_named(1, "hangs: ");
  }
  test::tally(test::scaled(1), "ranks hanging (monitor)");
}

TEST(MonitorProcesses, AnEarlyReturnFromACollectiveIsNamed) {
  for (int round = 0; round < test::scaled(1); ++round) {
    Job job([](int rank, Rank& self, Monitor&) {
      for (int i = 0; rank != 3 || i < kFaultStep; ++i) self.step(i);
    });
    job.wait(20);
    job.expect_named(3,
                     "is missing: it has ended its run after 30 operations; ranks 0, 1, 2, 4 wait");
    EXPECT_EQ(job.status(3), 76);
  }
  test::tally(test::scaled(1), "ranks hanging (monitor)");
}

TEST(MonitorProcesses, AFatalErrorEndsAllWithItsCode) {
  Job job([](int rank, Rank& self, Monitor& monitor) {
    for (int i = 0;; ++i) {
      if (rank == 2 && i == kFaultStep) monitor.fail(ExitCode::numeric, "loss is not finite");
      self.step(i);
    }
  });
  job.wait(20);
  EXPECT_EQ(job.output(), "error: rank 2: loss is not finite\n");
  for (int rank = 0; rank < kRanks; ++rank) EXPECT_EQ(job.status(rank), 79);
}

TEST(MonitorProcesses, AWholeJobThatIsStoppedAndGoesOnIsNoHang) {
  Job job([](int, Rank& self, Monitor&) {
    for (int i = 0; i < 300; ++i) self.step(i);
  });
  sleep_ms(400);
  for (int rank = 0; rank < kRanks; ++rank) job.signal(rank, SIGSTOP);
  sleep_ms(static_cast<int>(kWatchdog * 1000) + 800);
  for (int rank = 0; rank < kRanks; ++rank) job.signal(rank, SIGCONT);
  job.wait(20);
  EXPECT_EQ(job.output(), "");
  for (int rank = 0; rank < kRanks; ++rank) EXPECT_EQ(job.status(rank), 0);
}

}  // namespace
}  // namespace grist::watch
