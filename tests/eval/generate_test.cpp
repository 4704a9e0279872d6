// Choosing tokens from logits.
#include "grist/eval/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace grist::eval {
namespace {

const std::vector<float> kLogits = {0.0F, 2.0F, 1.0F, 2.0F, -1.0F};

std::map<std::int32_t, double> frequencies(const SamplingOptions& options, int draws = 20000) {
  std::map<std::int32_t, double> seen;
  for (int i = 0; i < draws; ++i)
    seen[sample_token(kLogits, options, static_cast<std::uint64_t>(i))] += 1.0 / draws;
  return seen;
}

TEST(SampleToken, GreedyTakesTheLargestAndTheLowerIdOnTies) {
  EXPECT_EQ(sample_token(kLogits, {.temperature = 0}, 0), 1);
}

TEST(SampleToken, FollowsTheSoftmaxAtTheTemperature) {
  for (const double temperature : {1.0, 0.5, 2.0}) {
    const auto seen = frequencies({.temperature = temperature, .seed = 3});
    double sum = 0;
    for (const float l : kLogits) sum += std::exp(static_cast<double>(l) / temperature);
    for (std::int32_t id = 0; id < 5; ++id) {
      const double want =
          std::exp(static_cast<double>(kLogits[static_cast<std::size_t>(id)]) / temperature) / sum;
      const double got = seen.count(id) > 0 ? seen.at(id) : 0.0;
      EXPECT_NEAR(got, want, 0.015) << "token " << id << " at " << temperature;
    }
  }
}

TEST(SampleToken, TopKAndTopPKeepOnlyTheMostLikely) {
  const auto k = frequencies({.top_k = 2});
  EXPECT_EQ(k.size(), 2U);
  EXPECT_TRUE(k.count(1) > 0 && k.count(3) > 0);
  const auto p = frequencies({.top_p = 0.3});  // token 1 alone has 0.39 of the mass
  EXPECT_EQ(p.size(), 1U);
  EXPECT_TRUE(p.count(1) > 0);
  EXPECT_EQ(frequencies({.top_p = 0.85}).size(), 3U);  // 0.39 + 0.39 + 0.14
}

TEST(SampleToken, IsAFunctionOfSeedAndPosition) {
  int different = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(sample_token(kLogits, {.seed = 1}, i), sample_token(kLogits, {.seed = 1}, i));
    different +=
        sample_token(kLogits, {.seed = 1}, i) != sample_token(kLogits, {.seed = 2}, i) ? 1 : 0;
  }
  EXPECT_GT(different, 20);
}

}  // namespace
}  // namespace grist::eval
