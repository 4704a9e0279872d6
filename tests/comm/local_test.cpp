// The local transport and the collectives on it.
#include <gtest/gtest.h>

#include <array>
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

TEST(LocalTransport, SumsAddByTheTree) {
  run_local(4, [](Communicator& c) {
    const double values[] = {1e17, 1.0, -1e17, 1.0};  // (1e17 + 1) + (-1e17 + 1) = 1e17 - 1e17 = 0
    EXPECT_EQ(all_reduce_sum(c, values[c.rank()]), 0.0);
  });
}

// Enough ranks for several rounds of the collectives' trees, with uneven last rounds.
TEST(LocalTransport, ManyRanks) {
  for (const int ranks : {16, 17, 40, 257}) {
    run_local(ranks, [&](Communicator& c) {
      barrier(c);
      const int last = c.size() - 1;
      EXPECT_EQ(all_reduce_max(c, std::int64_t{c.rank() == last / 2 ? 7 : -c.rank()}), 7);
      EXPECT_EQ(all_reduce_sum(c, std::int64_t{c.rank()}), std::int64_t{last} * c.size() / 2);
      const std::array<double, 2> own = {1.0 * c.rank(), 0.5};
      const std::vector<double> all = all_gather(c, own);
      for (int p = 0; p < c.size(); ++p) EXPECT_EQ(all[static_cast<std::size_t>(p) * 2], p);
      for (const int root : {0, last / 3, last})
        EXPECT_EQ(broadcast(c, std::to_string(c.rank()), root), std::to_string(root));
      std::vector<std::int64_t> counts = {1, c.rank(), 5};
      all_reduce_sum(c, std::span(counts));
      EXPECT_EQ(counts, (std::vector<std::int64_t>{c.size(), std::int64_t{last} * c.size() / 2,
                                                   5 * std::int64_t{c.size()}}));
      const std::vector<std::string> at_last = gather(c, std::to_string(c.rank()), last);
      EXPECT_EQ(at_last.size(), c.rank() == last ? static_cast<std::size_t>(ranks) : 0U);
      if (c.rank() == last) {
        EXPECT_EQ(at_last[static_cast<std::size_t>(last / 2)], std::to_string(last / 2));
      }
    });
  }
}

// 1000 ranks must not talk in pairs about every micro-batch.
TEST(LocalTransport, SmallValuesTakeFewMessages) {
  run_local(40, [](Communicator& c) {
    const std::uint64_t before = c.activity().operations;
    all_reduce_max(c, 1);
    EXPECT_EQ(c.activity().operations - before, 2U);
  });
}

// Its buffers are on the stack that unwinds: the wait in the destructor must neither end before the
// messages have moved nor last for ever.
TEST(LocalTransport, AnErrorWithAnOperationUnderWayEndsAll) {
  try {
    run_local(2, [](Communicator& c) {
      const auto other = c.split(0);
      std::int64_t value = 0;
      if (c.rank() == 0) {
        const Receive receive{1, std::as_writable_bytes(std::span(&value, 1))};
        const Pending never = c.exchange({}, {&receive, 1});
        fail(ExitCode::io, "disk full");
      }
      barrier(*other);
    });
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::io) << e.what();
  }
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
