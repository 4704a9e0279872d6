// Monitors as threads of one process over the local transport; the end of the process is noted
// instead. Real processes: monitor_process_test.cpp.
#include "grist/watch/monitor.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "grist/comm/collectives.h"
#include "grist/comm/local.h"
#include "grist/core/check.h"
#include "src/watch/monitor_link.h"

namespace grist::watch {
namespace {

using comm::Communicator;
using comm::run_local;
using std::chrono::milliseconds;

constexpr int kOwnOperations = 4;  // exchanges that the construction of a monitor takes

// What the monitors said and did.
class Watched {
 public:
  explicit Watched(double watchdog_seconds) : watchdog_seconds_(watchdog_seconds) {}

  Monitor::Options options(int rank) {
    return {.watchdog_seconds = watchdog_seconds_,
            .end =
                [this, rank](ExitCode code) {
                  const std::lock_guard lock(mutex_);
                  codes_[rank] = code;
                  changed_.notify_all();
                },
            .say =
                [this](const std::string& line) {
                  const std::lock_guard lock(mutex_);
                  lines_.push_back(line);
                },
            .stacks = false};
  }
  // Stands for a rank that is stuck: until its monitor ends it. Then the local transport must let
  // the others go, as the end of their processes would.
  [[noreturn]] void be_stuck(int rank) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::seconds(30), [&] { return codes_.count(rank) != 0; });
    }
    fail(ExitCode::peer_lost, "ended");
  }

  // Runs body on each rank and returns when all have ended.
  template <class Body> void run(int size, Body body) {
    try {
      run_local(size, [&](Communicator& c) {
        Monitor monitor(c, options(c.rank()));
        body(c, monitor);
      });
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::peer_lost) << e.what();
    }
  }
  void expect_ended(int size, ExitCode code, const std::string& line) {
    EXPECT_EQ(codes_.size(), static_cast<std::size_t>(size));
    for (const auto& [rank, c] : codes_) EXPECT_EQ(c, code) << "rank " << rank;
    ASSERT_EQ(lines_.size(), 1U);
    EXPECT_NE(lines_[0].find(line), std::string::npos) << lines_[0];
  }
  void expect_quiet() {
    EXPECT_TRUE(codes_.empty());
    EXPECT_TRUE(lines_.empty()) << lines_[0];
  }

 private:
  double watchdog_seconds_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, ExitCode> codes_;
  std::vector<std::string> lines_;
};

TEST(Monitor, OrderlyEndAtDifferentTimes) {
  Watched watched(1);
  watched.run(5, [](Communicator& c, Monitor& monitor) {
    barrier(c);
    std::this_thread::sleep_for(milliseconds(50 * c.rank()));
    monitor.stop();
  });
  watched.expect_quiet();
}

// Rank 0 comes late to its listener: what the others say right after their hello must not be lost.
TEST(Monitor, AnEndRightAfterTheStart) {
  Watched watched(1);
  run_local(3, [&](Communicator& c) {
    const auto texts = [&, calls = 0](const std::string& text) mutable {
      std::vector<std::string> all = all_gather(c, text);
      if (c.rank() == 0 && ++calls == 2) std::this_thread::sleep_for(milliseconds(200));
      return all;
    };
    Monitor monitor({c.rank(), c.size(), c.shared_activity(), texts}, watched.options(c.rank()));
    monitor.stop();
  });
  watched.expect_quiet();
}

// Another program listens at the address that rank 0 has named, as on a machine with the same
// private network: it accepts, and is not taken for rank 0.
TEST(Monitor, AStrangerAtRankZerosAddress) {
  for (const bool answers : {true, false}) {
    const int stranger = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof own;
    ASSERT_EQ(::bind(stranger, reinterpret_cast<sockaddr*>(&own), size), 0);
    ASSERT_EQ(::listen(stranger, 8), 0);
    ASSERT_EQ(::getsockname(stranger, reinterpret_cast<sockaddr*>(&own), &size), 0);
    std::thread hangs_up([&] {
      const int fd = ::accept(stranger, nullptr, nullptr);
      if (answers) {
        EXPECT_EQ(::send(fd, "220 mail.example.org ESMTP\r\n", 28, MSG_NOSIGNAL), 28);
      }
      ::close(fd);
      ::close(stranger);  // from now on nobody is there
    });
    const auto connect = [&] {
      connect_to_root(std::to_string(ntohs(own.sin_port)) + " 127.0.0.1", false, {"node1", 17},
                      "token1", 0.3);
    };
    EXPECT_THROW(connect(), Error);
    hangs_up.join();
  }
}

// More ranks than a program may have files open at first.
TEST(Monitor, RaisesTheLimitOfOpenFiles) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  if (before.rlim_max < 512) GTEST_SKIP() << "no room to raise the limit";
  const rlimit few{64, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  Watched watched(5);
  watched.run(40, [](Communicator& c, Monitor&) { barrier(c); });
  setrlimit(RLIMIT_NOFILE, &before);
  watched.expect_quiet();
}

TEST(Monitor, NoAlarmWhileSomebodyBeats) {
  Watched watched(1);
  watched.run(4, [](Communicator& c, Monitor&) {
    c.activity().step = 1;
    for (int i = 0; i < 2000; ++i) barrier(c);
    if (c.rank() == 2) {  // a long save, the others wait for it
      c.activity().enter("save");
      for (int i = 0; i < 110; ++i) {
        std::this_thread::sleep_for(milliseconds(20));
        c.activity().beat();
      }
    }
    barrier(c);
  });
  watched.expect_quiet();
}

TEST(Monitor, WithoutAWatchdogNobodyIsLate) {
  Watched watched(0);
  watched.run(2, [](Communicator& c, Monitor&) {
    if (c.rank() == 0) std::this_thread::sleep_for(milliseconds(700));
    barrier(c);
  });
  watched.expect_quiet();
}

TEST(Monitor, NamesTheRankThatDoesNotCome) {
  for (const int culprit : {0, 3}) {
    Watched watched(0.6);
    watched.run(4, [&](Communicator& c, Monitor&) {
      c.activity().step = 12;
      c.activity().enter("forward");
      for (int i = 0; i < 5; ++i) barrier(c);
      if (c.rank() == culprit) watched.be_stuck(culprit);
      barrier(c);
    });
    watched.expect_ended(4, ExitCode::peer_lost, fmt::format("rank {} (host ", culprit));
    watched.expect_ended(
        4, ExitCode::peer_lost,
        fmt::format("at step 12 in forward after {} operations; ranks ", kOwnOperations + 5));
    watched.expect_ended(4, ExitCode::peer_lost,
                         fmt::format("wait in operation {};", kOwnOperations + 6));
  }
}

TEST(Monitor, NamesTheRankThatReturnedEarlyFromACollective) {
  Watched watched(0.6);
  watched.run(4, [&](Communicator& c, Monitor& monitor) {
    for (int i = 0; i < 7; ++i) barrier(c);
    if (c.rank() == 1) {
      monitor.stop();
      watched.be_stuck(1);
    }
    barrier(c);
  });
  watched.expect_ended(4, ExitCode::peer_lost, "rank 1 (host ");
  watched.expect_ended(
      4, ExitCode::peer_lost,
      fmt::format("is missing: it has ended its run after {} operations", kOwnOperations + 7));
}

TEST(Monitor, NamesTheRankThatIsBehindWhenAllWait) {
  Watched watched(0.6);
  watched.run(3, [&](Communicator& c, Monitor&) {
    barrier(c);
    if (c.rank() == 2) {  // waits for a message that nobody sends
      c.activity().waiting += 1;
      watched.be_stuck(2);
    }
    barrier(c);
  });
  watched.expect_ended(3, ExitCode::peer_lost, "rank 2 (host ");
  watched.expect_ended(3, ExitCode::peer_lost, "collective calls do not match");
}

TEST(Monitor, OneRanksErrorEndsAllWithItsCode) {
  for (const int culprit : {0, 2}) {
    Watched watched(5);
    watched.run(4, [&](Communicator& c, Monitor& monitor) {
      barrier(c);
      if (c.rank() == culprit) {
        monitor.fail(ExitCode::io, "disk full:\nno space");
        fail(ExitCode::peer_lost, "ended");
      }
      barrier(c);
    });
    watched.expect_ended(4, ExitCode::io, fmt::format("rank {}: disk full: no space", culprit));
  }
}

TEST(Monitor, OneOfManyErrorsIsSaid) {
  Watched watched(5);
  watched.run(
      4, [](Communicator&, Monitor& monitor) { monitor.fail(ExitCode::config, "no such file"); });
  watched.expect_ended(4, ExitCode::config, ": no such file");
}

TEST(Monitor, ACauseGoesBeforeItsConsequences) {
  Watched watched(5);
  watched.run(3, [](Communicator& c, Monitor& monitor) {
    if (c.rank() == 1) std::this_thread::sleep_for(milliseconds(100));
    if (c.rank() == 1) {
      monitor.fail(ExitCode::io, "disk full");
    } else {
      monitor.fail(ExitCode::peer_lost, "connection to a peer was lost");
    }
  });
  watched.expect_ended(3, ExitCode::io, "rank 1: disk full");
}

TEST(Monitor, OneRankAloneFailsToo) {
  Watched watched(5);
  const auto c = comm::alone();
  Monitor monitor(*c, watched.options(0));
  monitor.fail(ExitCode::numeric, "not finite");
  monitor.stop();
  watched.expect_ended(1, ExitCode::numeric, "not finite");
}

}  // namespace
}  // namespace grist::watch
