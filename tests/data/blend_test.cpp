// Mixing by weight.
#include "blend.h"

#include <cmath>

#include "data/support.h"

namespace grist {
namespace {

using test::throws;

TEST(Blend, KeepsEverySourceAtItsShareAllTheTime) {
  const std::vector<std::vector<double>> cases = {
      {1}, {1, 1}, {0.7, 0.3}, {5, 3, 2}, {1, 10, 100, 1000}, {0.2, 0.2, 0.2, 0.2, 0.2}};
  for (const auto& weights : cases) {
    double total = 0;
    for (const double w : weights) total += w;
    const Blend blend(weights);
    std::vector<std::int64_t> taken(weights.size());
    double worst = 0;
    for (std::int64_t i = 0; i < 20000; ++i) {
      const Blend::Place place = blend(i);
      ASSERT_EQ(place.sample, taken[static_cast<std::size_t>(place.source)]++) << i;
      for (std::size_t d = 0; d < weights.size(); ++d) {
        const double want = weights[d] / total * static_cast<double>(i + 1);
        worst = std::max(worst, std::abs(want - static_cast<double>(taken[d])));
      }
    }
    EXPECT_LT(worst, 1.5) << weights.size() << " sources";
    for (std::size_t d = 0; d < weights.size(); ++d)
      EXPECT_EQ(blend.taken(static_cast<std::int64_t>(d), 20000), taken[d]);
  }
}

TEST(Blend, AnyIndexContinuesTheCycle) {
  const Blend blend(std::vector<double>{0.7, 0.3});
  const std::int64_t cycle = blend.cycle();

  EXPECT_EQ(cycle, std::int64_t{1} << 20);
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{12345}, cycle - 1}) {
    const Blend::Place here = blend(i);
    const Blend::Place later = blend(i + 1000 * cycle);
    EXPECT_EQ(here.source, later.source);
    EXPECT_EQ(later.sample - here.sample, 1000 * blend.share(here.source));
    EXPECT_EQ(blend.taken(later.source, i + 1000 * cycle), later.sample);
  }
}

TEST(Blend, OnlyRatiosMatter) {
  const Blend one(std::vector<double>{0.75, 0.25});
  const Blend two(std::vector<double>{3, 1});

  EXPECT_EQ(one.cycle(), 4);
  for (std::int64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(one(i).source, two(i).source);
    EXPECT_EQ(one(i).sample, two(i).sample);
  }
}

TEST(Blend, ATinyWeightIsNotLost) {
  const Blend blend(std::vector<double>{1, 1e-12, 1e-12});

  EXPECT_EQ(blend.share(1), 1);
  EXPECT_EQ(blend.share(2), 1);
  EXPECT_EQ(blend.share(0) + 2, blend.cycle());
}

TEST(Blend, RefusesWeightsWithoutMeaning) {
  for (const double bad : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_TRUE(throws(ExitCode::config, "data.train[1].weight", [&] {
      Blend(std::vector<double>{1, bad});
    }));
  }
  EXPECT_TRUE(throws(ExitCode::config, "0 sources", [] { Blend(std::vector<double>{}); }));
  EXPECT_TRUE(
      throws(ExitCode::config, "1025 sources", [] { Blend(std::vector<double>(1025, 1)); }));
}

}  // namespace
}  // namespace grist
