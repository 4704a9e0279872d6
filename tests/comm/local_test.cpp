// The local transport and the collectives on it.
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>

#include "grist/comm/collectives.h"
#include "grist/comm/local.h"
#include "grist/core/check.h"

namespace grist::comm {
namespace {

TEST(Local, AllToAllMovesUnevenRows) {
  run_local(4, [](Communicator& c) {
    const int r = c.rank();
    // Rank r sends r + p rows of two to rank p, each row (r, p).
    std::vector<std::int64_t> send_offsets = {0}, receive_offsets = {0};
    std::vector<float> send;
    for (int p = 0; p < 4; ++p) {
      for (int i = 0; i < (r == 0 ? 0 : r + p); ++i) {
        send.push_back(static_cast<float>(r));
        send.push_back(static_cast<float>(p));
      }
      send_offsets.push_back(static_cast<std::int64_t>(send.size() / 2));
      receive_offsets.push_back(receive_offsets.back() + (p == 0 ? 0 : p + r));
    }
    std::vector<float> received(static_cast<std::size_t>(receive_offsets.back()) * 2, -1.0F);
    all_to_all(c, {send.data(), DType::f32, {send_offsets.back(), 2}}, send_offsets,
               {received.data(), DType::f32, {receive_offsets.back(), 2}}, receive_offsets)
        .wait();
    for (int p = 0; p < 4; ++p) {
      for (auto i = receive_offsets[static_cast<std::size_t>(p)];
           i < receive_offsets[static_cast<std::size_t>(p) + 1]; ++i) {
        EXPECT_EQ(received[static_cast<std::size_t>(2 * i)], static_cast<float>(p));
        EXPECT_EQ(received[static_cast<std::size_t>(2 * i + 1)], static_cast<float>(r));
      }
    }
  });
}

TEST(Local, AnOperationMovesOnWithoutItsOwnersWait) {
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

TEST(Local, ReduceScatterAddsByTheTree) {
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

TEST(Local, TextsAndScalars) {
  run_local(3, [](Communicator& c) {
    const std::string mine(static_cast<std::size_t>(c.rank()) * 3,
                           static_cast<char>('a' + c.rank()));
    EXPECT_EQ(all_gather(c, mine), (std::vector<std::string>{"", "bbb", "cccccc"}));
    EXPECT_EQ(gather(c, mine, 1).size(), c.rank() == 1 ? 3U : 0U);
    EXPECT_EQ(broadcast(c, mine, 2), "cccccc");
    EXPECT_EQ(all_reduce_sum(c, std::int64_t{1} << c.rank()), 7);
    EXPECT_EQ(all_reduce_max(c, std::int64_t{-c.rank()}), 0);
    EXPECT_EQ(all_reduce_sum(c, 0.5), 1.5);
    std::vector<std::int64_t> counts = {c.rank(), 10};
    all_reduce_sum(c, std::span(counts));
    EXPECT_EQ(counts, (std::vector<std::int64_t>{3, 30}));
  });
}

TEST(Local, SplitsKeepTheOrderOfRanks) {
  run_local(6, [](Communicator& c) {
    const auto half = c.split(c.rank() % 2);
    EXPECT_EQ(half->size(), 3);
    EXPECT_EQ(half->rank(), c.rank() / 2);
    EXPECT_EQ(all_reduce_sum(*half, std::int64_t{c.rank()}), c.rank() % 2 == 0 ? 6 : 9);
    const auto one = half->split(half->rank());
    EXPECT_EQ(one->size(), 1);
    barrier(*one);
  });
}

TEST(Local, OneRanksErrorEndsTheWaitsOfAll) {
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

TEST(Local, AgreeMakesOneErrorOfAll) {
  run_local(4, [](Communicator& c) {
    agree(c, [] {});
    try {
      agree(c, [&] {
        if (c.rank() >= 2) fail(ExitCode::io, "no room for {}", c.rank());
      });
      ADD_FAILURE() << "no error on rank " << c.rank();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::io);
      EXPECT_STREQ(e.what(), "rank 2: no room for 2");
    }
  });
}

TEST(Local, SizesThatDoNotFitAreNamed) {
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
