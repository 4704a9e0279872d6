// The MPI transport, on the ranks that mpirun has started.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "grist/comm/collectives.h"
#include "grist/comm/local.h"
#include "support/mpi_ranks.h"
#include "support/temporary_folder.h"
#include "transport_tests.h"

namespace grist::comm {
namespace {

using test::world;

class Mpi : public testing::TestWithParam<TransportTest> {};

TEST_P(Mpi, DoesWhatEveryTransportMust) {
  GetParam().body(world());
}

INSTANTIATE_TEST_SUITE_P(Transport, Mpi, testing::ValuesIn(transport_tests()),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(MpiLaunch, KnowsItsRanksAndHost) {
  EXPECT_TRUE(test::launched().mpi);
  EXPECT_EQ(test::launched().local_size, world().size());  // one host in tests
  EXPECT_EQ(test::launched().local_rank, world().rank());
  EXPECT_FALSE(test::launched().host.empty());
  EXPECT_GE(test::launched().cores, 1);
}

TEST(MpiTransport, SplitsMessagesThatAreTooLongForOneCall) {
  if (world().size() != 2) GTEST_SKIP() << "for two ranks";
  const std::size_t n = (std::size_t{64} << 20) + 12345;  // more than one piece of mpi.cpp
  std::vector<std::byte> mine(n), theirs(n);
  for (std::size_t i = 0; i < n; i += 4093)
    mine[i] = static_cast<std::byte>(i * 7 + static_cast<std::size_t>(world().rank()));
  mine.back() = static_cast<std::byte>(100 + world().rank());
  const int peer = 1 - world().rank();
  const Send send{peer, mine};
  const Receive receive{peer, theirs};
  world().exchange({&send, 1}, {&receive, 1}).wait();
  for (std::size_t i = 0; i < n - 1; i += 4093)
    ASSERT_EQ(theirs[i], static_cast<std::byte>(i * 7 + static_cast<std::size_t>(peer))) << i;
  EXPECT_EQ(theirs.back(), static_cast<std::byte>(100 + peer));
}

// Rank 1's wait ends while rank 0, whose part is large enough to need its help, is busy elsewhere.
TEST(MpiTransport, StartedMessagesMoveWhileTheCallerIsBusy) {
  if (world().size() < 2) GTEST_SKIP() << "for two ranks";
  const test::TemporaryFolder folder;
  const std::filesystem::path done = broadcast(world(), (folder / "done").string(), 0);
  const auto other = world().split(0);
  const int r = world().rank();
  std::vector<std::byte> mine(3 << 20), theirs(mine.size());
  const Send send{1 - r, mine};
  const Receive receive{1 - r, theirs};
  const std::span<const Send> sends(&send, r < 2 ? 1 : 0);
  const std::span<const Receive> receives(&receive, r < 2 ? 1 : 0);
  Pending pending = other->exchange(sends, receives);
  if (r == 1) {
    pending.wait();
    std::ofstream(done) << "done";
  } else if (r == 0) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!std::filesystem::exists(done) && std::chrono::steady_clock::now() < end)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(std::filesystem::exists(done)) << "nothing moved without rank 0's wait";
  }
  pending.wait();
  barrier(world());
}

// The same program on both transports: sums whose bits depend on the order.
TEST(MpiTransport, SumsToTheBitsOfTheLocalTransport) {
  const auto sums = [](Communicator& c) {
    std::vector<double> x;
    for (int i = 0; i < 99; ++i) x.push_back(all_reduce_sum(c, 1.0 / (3.0 + i * 17.0 + c.rank())));
    return x;
  };
  std::vector<double> local;
  std::mutex mutex;
  run_local(world().size(), [&](Communicator& c) {
    const std::vector<double> x = sums(c);
    const std::lock_guard lock(mutex);
    if (c.rank() == world().rank()) local = x;
  });
  EXPECT_EQ(sums(world()), local);
}

}  // namespace
}  // namespace grist::comm
