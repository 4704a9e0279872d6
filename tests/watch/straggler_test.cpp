// Slow ranks are named with their phase; noise names nobody.
#include "grist/watch/straggler.h"

#include <gtest/gtest.h>

#include <random>

namespace grist::watch {
namespace {

constexpr int kForward = 0, kBackward = 1;

// Steps of `ranks` ranks with 10 % noise and a spike now and then.
class Steps {
 public:
  Steps(int ranks, unsigned seed) : ranks_(ranks), random_(seed) {}
  int slow_rank = -1;
  double slowness = 1;  // of the slow rank's backward pass

  std::vector<double> next() {
    std::normal_distribution<double> noise(1, 0.1);
    std::vector<double> seconds;
    for (int r = 0; r < ranks_; ++r) {
      const double spike = random_() % 50 == 0 ? 5 : 1;
      seconds.push_back(0.1 * std::max(0.5, noise(random_)) * spike);
      seconds.push_back(0.2 * std::max(0.5, noise(random_)) * (r == slow_rank ? slowness : 1));
    }
    return seconds;
  }

 private:
  int ranks_;
  std::mt19937 random_;
};

StragglerWatch watch(int ranks) {
  std::vector<std::string> hosts;
  for (int r = 0; r < ranks; ++r) hosts.push_back("node" + std::to_string(r / 4));
  return {hosts, {"forward", "backward"}};
}

TEST(Straggler, NamesTheSlowRankWithinFiftySteps) {
  for (const int ranks : {2, 3, 8}) {
    for (unsigned seed = 0; seed < 20; ++seed) {
      Steps steps(ranks, seed);
      steps.slow_rank = static_cast<int>(seed) % ranks;
      steps.slowness = 1.6;  // 1.4x the whole step
      StragglerWatch w = watch(ranks);
      std::vector<std::string> lines;
      for (int i = 0; i < 50 && lines.empty(); ++i) lines = w.observe(steps.next());
      ASSERT_EQ(lines.size(), 1U) << ranks << " ranks, seed " << seed;
      const std::string begin = "rank " + std::to_string(steps.slow_rank) + " (host node" +
                                std::to_string(steps.slow_rank / 4) + ") is slow: 1.";
      EXPECT_EQ(lines[0].substr(0, begin.size()), begin);
      EXPECT_NE(lines[0].find("mostly in backward"), std::string::npos) << lines[0];
    }
  }
}

TEST(Straggler, NoFalseAlarmUnderNoise) {
  for (const int ranks : {2, 5, 16}) {
    Steps steps(ranks, 7);
    StragglerWatch w = watch(ranks);
    for (int i = 0; i < 1000; ++i) EXPECT_TRUE(w.observe(steps.next()).empty());
  }
}

TEST(Straggler, IsNamedOnceUntilItRecovers) {
  StragglerWatch w = watch(3);
  const auto named = [&](double backward) {
    std::size_t lines = 0;
    for (int i = 0; i < StragglerWatch::kWindow; ++i) {
      std::vector<double> seconds = {1, 1, 1, 1, 1, 1};
      seconds[2 * 1 + kBackward] = backward;
      lines += w.observe(seconds).size();
    }
    return lines;
  };
  EXPECT_EQ(named(2.0), 1U);
  EXPECT_EQ(named(2.0), 0U);
  EXPECT_EQ(named(1.4), 0U);  // 1.2x in all: better, not well
  EXPECT_EQ(named(2.0), 0U);
  EXPECT_EQ(named(1.0), 0U);
  EXPECT_EQ(named(2.0), 1U);
}

TEST(Straggler, SaysHowMuchAndWhere) {
  StragglerWatch w = watch(4);
  std::vector<std::string> lines;
  for (int i = 0; i < StragglerWatch::kWindow; ++i) {
    std::vector<double> seconds(8, 0.5);
    seconds[2 * 3 + kForward] = 1.0;
    lines = w.observe(seconds);
    EXPECT_EQ(lines.empty(), i + 1 < StragglerWatch::kWindow);
  }
  EXPECT_EQ(lines, std::vector<std::string>{
                       "rank 3 (host node0) is slow: 1.50x the median compute time of the others "
                       "over the last 20 steps, mostly in forward"});
}

TEST(Straggler, OneRankAloneIsNeverSlow) {
  StragglerWatch w = watch(1);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(w.observe(std::vector<double>{1, 1}).empty());
}

}  // namespace
}  // namespace grist::watch
