// Who is named when a job stands still: every case of the rule, without sockets and clocks.
#include <gtest/gtest.h>

#include <numeric>

#include "src/watch/hang.h"

namespace grist::watch {
namespace {

constexpr double kLimit = 10;

// Four ranks at work: heard a moment ago, in step 7, 100 operations.
std::vector<RankSeen> job() {
  std::vector<RankSeen> ranks;
  for (int r = 0; r < 4; ++r)
    ranks.push_back({.rank = r,
                     .name = "rank " + std::to_string(r) + " (host h, pid 1)",
                     .step = 7,
                     .phase = "forward",
                     .operations = 100,
                     .waits = 100,
                     .silent = 0.3,
                     .unheard = 0.2});
  return ranks;
}

void wait_silently(RankSeen& r, std::uint64_t operation = 101) {
  r.waiting = true;
  r.silent = 11;
  r.operations = r.waits = operation;
}

TEST(Hang, NobodyAtWork) {
  EXPECT_EQ(find_hang(job(), kLimit), std::nullopt);
}

TEST(Hang, SomebodyWhoBeatsWhileTheOthersWaitIsNoHang) {
  auto ranks = job();
  for (int r : {0, 2, 3}) wait_silently(ranks[r]);
  EXPECT_EQ(find_hang(ranks, kLimit), std::nullopt);
}

TEST(Hang, TheOneThatDoesNotWait) {
  auto ranks = job();
  for (int r : {0, 1, 3}) wait_silently(ranks[r]);
  ranks[2].silent = 10.2;
  EXPECT_EQ(find_hang(ranks, kLimit),
            "rank 2 (host h, pid 1) hangs: no sign of life for 10.2 s at step 7 in forward after "
            "100 operations; ranks 0, 1, 3 wait in operation 101");
  ranks[3].waiting = false;
  EXPECT_EQ(find_hang(ranks, kLimit),
            "rank 2 (host h, pid 1) hangs: no sign of life for 10.2 s at step 7 in forward after "
            "100 operations; so does rank 3; ranks 0, 1 wait in operation 101");
}

TEST(Hang, TheOneThatIsNotHeard) {
  auto ranks = job();
  for (int r : {0, 1, 3}) wait_silently(ranks[r]);
  ranks[2].waiting = true;  // stopped inside a wait
  ranks[2].silent = 10.4;
  ranks[2].unheard = 10.1;
  const std::string named =
      "rank 2 (host h, pid 1) is stopped or its machine is lost: no heartbeat for 10.1 s, last "
      "seen at step 7 in forward after 100 operations; ranks 0, 1, 3 wait in operation 101";
  EXPECT_EQ(find_hang(ranks, kLimit), named);
  // Also when the others do not wait yet, and a little before its time when all are silent.
  ranks[0].waiting = ranks[1].waiting = ranks[3].waiting = false;
  EXPECT_EQ(find_hang(ranks, kLimit)->substr(0, 40), named.substr(0, 40));
  for (int r : {0, 1, 3}) wait_silently(ranks[r]);
  ranks[2].unheard = 6;
  EXPECT_EQ(find_hang(ranks, kLimit)->substr(0, 40), named.substr(0, 40));
}

TEST(Hang, AllWaitAndOneIsBehind) {
  auto ranks = job();
  for (auto& r : ranks) wait_silently(r);
  wait_silently(ranks[3], 99);
  EXPECT_EQ(find_hang(ranks, kLimit),
            "rank 3 (host h, pid 1) is missing: it waits in operation 99 at step 7 in forward; "
            "ranks 0, 1, 2 wait in operation 101: the ranks' collective calls do not match");
  wait_silently(ranks[3]);
  ranks[1].waits = 98;  // as many operations begun, but it has not come to wait for the last ones
  EXPECT_EQ(find_hang(ranks, kLimit)->substr(0, 22), "rank 1 (host h, pid 1)");
}

TEST(Hang, OneHasEndedItsRun) {
  auto ranks = job();
  for (int r : {0, 1, 2}) wait_silently(ranks[r]);
  ranks[3].left = true;
  ranks[3].silent = 9;  // the others may be on their way, their heartbeats late
  EXPECT_EQ(find_hang(ranks, kLimit), std::nullopt);
  ranks[3].silent = 10;
  EXPECT_EQ(find_hang(ranks, kLimit),
            "rank 3 (host h, pid 1) is missing: it has ended its run after 100 operations; ranks "
            "0, 1, 2 wait in operation 101: the ranks' collective calls do not match");
  ranks[2].silent = 1;  // still busy, e.g. with the last save
  EXPECT_EQ(find_hang(ranks, kLimit), std::nullopt);
}

TEST(Hang, NobodyToBlame) {
  auto ranks = job();
  for (auto& r : ranks) wait_silently(r);
  EXPECT_EQ(find_hang(ranks, kLimit),
            "all ranks wait in operation 101 at step 7 in forward and no message moves: the "
            "network is stuck, or their calls do not match");
}

TEST(Hang, RanksThatHaveEndedAreNeverLate) {
  auto ranks = job();
  for (auto& r : ranks) {
    r.left = true;
    r.silent = r.unheard = 100;
  }
  EXPECT_EQ(find_hang(ranks, kLimit), std::nullopt);
}

TEST(Hang, LongListsOfRanksAreCounted) {
  std::vector<int> ranks(64);
  std::iota(ranks.begin(), ranks.end(), 0);
  EXPECT_EQ(rank_list(ranks), "ranks 0, 1, 2, 3, 4, 5, 6, 7, ... (64 in all)");
  EXPECT_EQ(rank_list(std::span(ranks).subspan(5, 1)), "rank 5");
}

}  // namespace
}  // namespace grist::watch
