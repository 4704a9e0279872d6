#include "transport_tests.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <thread>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"

namespace grist::comm {

namespace {

// Element i of what rank `from` sends to rank `to` in round `round`.
std::uint32_t element(int from, int to, int round, std::int64_t i) {
  std::uint64_t x = static_cast<std::uint64_t>(from) * 1000003U + static_cast<std::uint64_t>(to);
  x = (x * 1000003U + static_cast<std::uint64_t>(round)) * 1000003U + static_cast<std::uint64_t>(i);
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9U;
  return static_cast<std::uint32_t>(x >> 32);
}

// An uneven all-to-all of 4-byte elements with known contents. count(from, to): how many.
struct Shuffle {
  template <class Count> Shuffle(Communicator& c, int round_, Count count) : round(round_) {
    const int r = c.rank();
    for (int p = 0; p < c.size(); ++p) {
      for (std::int64_t i = 0; i < count(r, p); ++i) sent.push_back(element(r, p, round, i));
      send_offsets.push_back(static_cast<std::int64_t>(sent.size()));
      receive_offsets.push_back(receive_offsets.back() + count(p, r));
    }
    received.resize(static_cast<std::size_t>(receive_offsets.back()), 0);
    pending = all_to_all(c, {sent.data(), DType::i32, {send_offsets.back()}}, send_offsets,
                         {received.data(), DType::i32, {receive_offsets.back()}}, receive_offsets);
  }
  void check(const Communicator& c) {
    pending.wait();
    for (int p = 0; p < c.size(); ++p) {
      const auto begin = receive_offsets[static_cast<std::size_t>(p)];
      const auto end = receive_offsets[static_cast<std::size_t>(p) + 1];
      for (auto i = begin; i < end; ++i) {
        ASSERT_EQ(received[static_cast<std::size_t>(i)], element(p, c.rank(), round, i - begin))
            << "from rank " << p << " in round " << round << ", element " << i - begin;
      }
    }
  }

  int round;
  std::vector<std::int64_t> send_offsets = {0}, receive_offsets = {0};
  std::vector<std::uint32_t> sent, received;
  Pending pending;
};

void uneven_all_to_all(Communicator& c) {
  for (int round = 0; round < 20; ++round) {
    Shuffle s(c, round, [&](int from, int to) { return (from * 7 + to * 3 + round) % 5; });
    s.check(c);
  }
}

void nothing_to_send(Communicator& c) {
  Shuffle none(c, 0, [](int, int) { return 0; });
  none.check(c);
  Shuffle one(c, 1, [&](int from, int to) { return from == c.size() - 1 && to == 0 ? 3 : 0; });
  one.check(c);
  c.exchange({}, {}).wait();
}

// Above every transport's limit for messages that are sent at once, and uneven.
void large_messages(Communicator& c) {
  for (int round = 0; round < 3; ++round) {
    Shuffle s(c, round, [&](int from, int to) {
      return (from + to + round) % 3 == 0 ? 0 : 40000 + 1000 * from + 77 * to;
    });
    s.check(c);
  }
}

void many_outstanding_on_several_communicators(Communicator& c) {
  const auto halves = c.split(c.rank() % 2);
  const auto reversed = c.split(0);
  const std::array<Communicator*, 3> all = {&c, halves.get(), reversed.get()};
  std::vector<std::pair<Communicator*, std::unique_ptr<Shuffle>>> started;
  for (int round = 0; round < 30; ++round) {
    Communicator& on = *all[static_cast<std::size_t>(round) % all.size()];
    const int large = round % 7 == 0 ? 20000 : 1;
    started.emplace_back(&on, std::make_unique<Shuffle>(on, round, [&](int from, int to) {
      return ((from + 2 * to + round) % 4) * large;
    }));
  }
  std::mt19937 order(static_cast<unsigned>(c.rank()) + 5U);  // another order on every rank
  std::shuffle(started.begin(), started.end(), order);
  for (auto& [on, shuffle] : started) shuffle->check(*on);
}

void communicators_in_several_threads(Communicator& c) {
  const auto other = c.split(0);
  const auto work = [](Communicator& mine, int first) {
    for (int round = first; round < first + 40; ++round) {
      Shuffle s(mine, round, [&](int from, int to) {
        return (from + to + round) % 3 * (round % 8 == 0 ? 9000 : 2);
      });
      s.check(mine);
    }
    const auto part = mine.split(mine.rank() % 2);
    EXPECT_EQ(all_reduce_sum(*part, std::int64_t{1}), part->size());
  };
  std::thread thread([&] { work(*other, 1000); });
  work(c, 0);
  thread.join();
}

void splits_keep_the_order_of_ranks(Communicator& c) {
  const auto part = c.split(c.rank() % 2);
  EXPECT_EQ(part->rank(), c.rank() / 2);
  EXPECT_EQ(part->size(), c.rank() % 2 == 0 ? (c.size() + 1) / 2 : c.size() / 2);
  std::int64_t sum = 0;
  for (int p = c.rank() % 2; p < c.size(); p += 2) sum += p;
  EXPECT_EQ(all_reduce_sum(*part, std::int64_t{c.rank()}), sum);
  const auto quarter = part->split(part->rank() % 2);
  const std::vector<std::string> all = all_gather(*quarter, std::to_string(c.rank()));
  for (std::size_t i = 0; i < all.size(); ++i)
    EXPECT_EQ(all[i], std::to_string(c.rank() % 4 + 4 * static_cast<int>(i)));
  const auto one = quarter->split(quarter->rank());
  EXPECT_EQ(one->size(), 1);
  barrier(*one);
}

// Element i of the buffer whose parts rank r gives away.
float part_element(int rank, std::int64_t i) {
  return static_cast<float>(element(rank, 0, 99, i) >> 8U);
}

void parts_come_to_their_rank_in_rank_order(Communicator& c) {
  const std::int64_t n = 10007;
  const auto P = static_cast<std::size_t>(c.size());
  std::vector<std::int64_t> offsets = {0};  // uneven, with an empty part
  for (std::size_t p = 1; p < P; ++p)
    offsets.push_back(p == 2 ? offsets.back()
                             : static_cast<std::int64_t>(p * p) * n /
                                   static_cast<std::int64_t>(P * P));
  offsets.push_back(n);
  std::vector<float> buffer;
  for (std::int64_t i = 0; i < n; ++i) buffer.push_back(part_element(c.rank(), i));
  const auto self = static_cast<std::size_t>(c.rank());
  const std::int64_t own = offsets[self + 1] - offsets[self];
  std::vector<float> staging(static_cast<std::size_t>(own) * P);

  gather_parts(c, {buffer.data(), DType::f32, {n}}, offsets,
               {staging.data(), DType::f32, {c.size(), own}})
      .wait();

  for (std::size_t p = 0, at = 0; p < P; ++p)
    for (std::int64_t i = offsets[self]; i < offsets[self + 1]; ++i, ++at)
      ASSERT_EQ(staging[at], part_element(static_cast<int>(p), i)) << "of rank " << p << ", " << i;
}

void texts_and_scalars(Communicator& c) {
  const auto text = [](int p) {
    return std::string(static_cast<std::size_t>(p) * 3000, static_cast<char>('a' + p));
  };
  const std::string mine = text(c.rank());
  const int last = c.size() - 1;
  const std::vector<std::string> all = all_gather(c, mine), rooted = gather(c, mine, last);
  ASSERT_EQ(all.size(), static_cast<std::size_t>(c.size()));
  for (int p = 0; p < c.size(); ++p) EXPECT_EQ(all[static_cast<std::size_t>(p)], text(p));
  EXPECT_EQ(rooted, c.rank() == last ? all : std::vector<std::string>{});
  EXPECT_EQ(broadcast(c, mine, last), text(last));
  EXPECT_EQ(all_reduce_sum(c, std::int64_t{1} << c.rank()), (std::int64_t{1} << c.size()) - 1);
  EXPECT_EQ(all_reduce_max(c, std::int64_t{-c.rank()}), 0);
  EXPECT_EQ(all_reduce_sum(c, 0.5), 0.5 * c.size());
  std::vector<std::int64_t> counts = {c.rank(), 10};
  all_reduce_sum(c, std::span(counts));
  EXPECT_EQ(counts[0], c.size() * (c.size() - 1) / 2);
  EXPECT_EQ(counts[1], 10 * c.size());
}

void agree_makes_one_error_of_all(Communicator& c) {
  agree(c, [] {});
  const int first = c.size() / 2;
  try {
    agree(c, [&] {
      if (c.rank() >= first) fail(ExitCode::io, "no room for {}", c.rank());
    });
    ADD_FAILURE() << "no error on rank " << c.rank();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::io);
    const std::string rank = std::to_string(first);
    EXPECT_EQ(e.what(), (c.size() == 1 ? "" : "rank " + rank + ": ") + "no room for " + rank);
  }
  barrier(c);
}

void an_operation_may_be_dropped(Communicator& c) {
  {
    const Shuffle dropped(c, 1, [](int, int) { return 30000; });  // waits in its destructor
  }
  Shuffle s(c, 2, [](int, int) { return 2; });
  s.check(c);
}

void activity_counts_operations_and_waits(Communicator& c) {
  const auto part = c.split(0);
  EXPECT_EQ(&part->activity(), &c.activity());
  const std::uint64_t operations = c.activity().operations, waits = c.activity().waits;
  for (int i = 0; i < 3; ++i) barrier(*part);
  EXPECT_EQ(c.activity().operations - operations, 3U);
  EXPECT_EQ(c.activity().waits - waits, 3U);
  EXPECT_EQ(c.activity().waiting, 0);
}

constexpr TransportTest kTests[] = {
    {"UnevenAllToAll", uneven_all_to_all},
    {"NothingToSend", nothing_to_send},
    {"LargeMessages", large_messages},
    {"ManyOutstandingOnSeveralCommunicators", many_outstanding_on_several_communicators},
    {"CommunicatorsInSeveralThreads", communicators_in_several_threads},
    {"SplitsKeepTheOrderOfRanks", splits_keep_the_order_of_ranks},
    {"PartsComeToTheirRankInRankOrder", parts_come_to_their_rank_in_rank_order},
    {"TextsAndScalars", texts_and_scalars},
    {"AgreeMakesOneErrorOfAll", agree_makes_one_error_of_all},
    {"AnOperationMayBeDropped", an_operation_may_be_dropped},
    {"ActivityCountsOperationsAndWaits", activity_counts_operations_and_waits},
};

}  // namespace

std::span<const TransportTest> transport_tests() {
  return kTests;
}

}  // namespace grist::comm
