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

// The same program on both transports: an fp32 sum whose bits depend on the order.
TEST(MpiTransport, ReducesToTheBitsOfTheLocalTransport) {
  const std::int64_t n = 999, P = world().size();
  const auto reduced = [&](Communicator& c) {
    std::vector<std::int64_t> offsets;
    for (std::int64_t p = 0; p <= P; ++p) offsets.push_back(p * n / P);
    std::vector<float> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = 1.0F / (3.0F + static_cast<float>(i) * 17.0F + static_cast<float>(c.rank()));
    const auto self = static_cast<std::size_t>(c.rank());
    std::vector<float> staging(static_cast<std::size_t>(P * (offsets[self + 1] - offsets[self])));
    reduce_scatter({}, c, {x.data(), DType::f32, {n}}, offsets,
                   {staging.data(), DType::f32, {P, offsets[self + 1] - offsets[self]}});
    all_gather(c, {x.data(), DType::f32, {n}}, offsets).wait();
    return x;
  };
  std::vector<float> local;
  std::mutex mutex;
  run_local(static_cast<int>(P), [&](Communicator& c) {
    const std::vector<float> x = reduced(c);
    const std::lock_guard lock(mutex);
    if (c.rank() == world().rank()) local = x;
  });
  EXPECT_EQ(reduced(world()), local);
}

}  // namespace
}  // namespace grist::comm
