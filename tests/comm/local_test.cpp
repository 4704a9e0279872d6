// The local transport and the collectives on it.
#include <gtest/gtest.h>

#include <atomic>
#include <tuple>

#include "grist/comm/collectives.h"
#include "grist/comm/local.h"
#include "grist/core/check.h"
#include "transport_tests.h"

namespace grist::comm {
namespace {

class Local : public testing::TestWithParam<std::tuple<TransportTest, int>> {};

TEST_P(Local, DoesWhatEveryTransportMust) {
  run_local(std::get<1>(GetParam()), std::get<0>(GetParam()).body);
}

INSTANTIATE_TEST_SUITE_P(Transport, Local,
                         testing::Combine(testing::ValuesIn(transport_tests()),
                                          testing::Values(1, 2, 3, 4, 8)),
                         [](const auto& instance) {
                           return fmt::format("{}On{}", std::get<0>(instance.param).name,
                                              std::get<1>(instance.param));
                         });

TEST(LocalTransport, AnOperationMovesOnWithoutItsOwnersWait) {
  run_local(2, [](Communicator& c) {
    const int peer = 1 - c.rank();
    int mine = c.rank(), theirs = -1;
    const Send send{peer, std::as_bytes(std::span(&mine, 1))};
    const Receive receive{peer, std::as_writable_bytes(std::span(&theirs, 1))};
    Pending started = c.exchange({&send, 1}, {&receive, 1});
    for (int i = 0; i < 10; ++i) barrier(c);  // more operations before the first is waited for
    EXPECT_EQ(theirs, peer);
    started.wait();
  });
}

TEST(LocalTransport, ReduceScatterAddsByTheTree) {
  run_local(4, [](Communicator& c) {
    const std::vector<std::int64_t> offsets = {0, 1, 1, 3, 4};
    const float values[] = {1e8F, 1.0F, -1e8F, 1.0F};  // (1e8 + 1) + (-1e8 + 1) = 1e8 - 1e8 = 0
    std::vector<float> buffer(4, values[c.rank()]);
    const auto self = static_cast<std::size_t>(c.rank());
    const std::int64_t own = offsets[self + 1] - offsets[self];
    std::vector<float> staging(static_cast<std::size_t>(own) * 4);
    reduce_scatter({}, c, {buffer.data(), DType::f32, {4}}, offsets,
                   {staging.data(), DType::f32, {4, own}});
    for (auto i = offsets[self]; i < offsets[self + 1]; ++i)
      EXPECT_EQ(buffer[static_cast<std::size_t>(i)], 0.0F);
  });
}

TEST(LocalTransport, OneRanksErrorEndsTheWaitsOfAll) {
  std::atomic<int> ended = 0;
  try {
    run_local(3, [&](Communicator& c) {
      if (c.rank() == 1) fail(ExitCode::io, "disk full");
      try {
        barrier(c);
      } catch (const Error& e) {
        ended += e.code() == ExitCode::peer_lost ? 1 : 0;
        throw;
      }
    });
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::io);
  }
  EXPECT_EQ(ended, 2);
}

TEST(LocalTransport, SizesThatDoNotFitAreNamed) {
  EXPECT_THROW(run_local(2,
                         [](Communicator& c) {
                           std::vector<std::byte> bytes(c.rank() == 0 ? 4 : 8);
                           const Send send{1 - c.rank(), bytes};
                           const Receive receive{1 - c.rank(), bytes};
                           c.exchange({&send, 1}, {&receive, 1}).wait();
                         }),
               Error);
}

TEST(Alone, IsAWorldOfOne) {
  const auto c = alone();
  EXPECT_EQ(c->size(), 1);
  EXPECT_EQ(all_reduce_sum(*c, 2.5), 2.5);
  EXPECT_EQ(all_gather(*c, "x"), std::vector<std::string>{"x"});
  EXPECT_THROW(agree(*c, [] { fail(ExitCode::io, "full"); }), Error);
}

}  // namespace
}  // namespace grist::comm
