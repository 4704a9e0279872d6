// Choice, weights and statistics of the router against float64 formulas.
#include <limits>
#include <numeric>

#include "grist/core/error.h"
#include "ops/router_reference.h"

namespace grist {
namespace {

using namespace test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Shape3 {
  std::int64_t N, E, K;
};
const Shape3 kShapes[] = {{1, 1, 1},    {7, 8, 2},   {130, 64, 8}, {65, 37, 5},
                          {3, 512, 64}, {9, 16, 16}, {5, 20, 17}};

TEST(Router, ChoosesTheLargestLogitsAndWeighsThemByFormula) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    for (const Shape3& shape : kShapes) {
      SCOPED_TRACE(name_of(mode) + " E " + std::to_string(shape.E));
      Problem p(shape.N, shape.E, shape.K, mode);

      p.route(*ctx);

      Doubles want;
      for (std::int64_t n = 0; n < p.N; ++n) {
        const Doubles l = p.row(n);
        Ids order(Problem::at(p.E));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](std::int32_t i, std::int32_t j) {
          return l[Problem::at(i)] > l[Problem::at(j)];
        });
        order.resize(Problem::at(p.K));
        ASSERT_EQ(order, Ids(p.chosen(n), p.chosen(n) + p.K)) << "token " << n;
        const Doubles w = gate_weights(l, order.data(), order.size(), mode);
        want.insert(want.end(), w.begin(), w.end());
      }
      EXPECT_TRUE(close(p.weights, want, {2e-6, 1e-12}));
    }
  }
}

TEST(Router, BiasMovesTheChoiceAndNotTheWeights) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    SCOPED_TRACE(name_of(mode));
    Problem p(50, 24, 3, mode);
    const std::vector<float> bias = normals(24, "router.bias", 0.3F);

    p.route(*ctx, bias);

    Doubles want;
    for (std::int64_t n = 0; n < p.N; ++n) {
      Doubles s = scores(p.row(n), mode);
      for (std::size_t e = 0; e < s.size(); ++e) s[e] += static_cast<double>(bias[e]);
      Ids order(s.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](std::int32_t i, std::int32_t j) {
        return s[Problem::at(i)] > s[Problem::at(j)];
      });
      order.resize(3);
      ASSERT_EQ(order, Ids(p.chosen(n), p.chosen(n) + 3)) << "token " << n;
      const Doubles w = gate_weights(p.row(n), order.data(), 3, mode);
      want.insert(want.end(), w.begin(), w.end());
    }
    EXPECT_TRUE(close(p.weights, want, {2e-6, 1e-12}));
  }
}

TEST(Router, TiesGoToTheLowerExpertId) {
  const CpuContext ctx;
  Problem p(2, 6, 3, {});
  p.logits = {1, 2, 2, 1, 2, 2, -0.0F, 0.0F, -1, -0.0F, 0.0F, -2};

  p.route(*ctx);

  EXPECT_EQ(p.ids, (Ids{1, 2, 4, 0, 1, 3}));
  EXPECT_TRUE(close(p.weights, Doubles(6, 1.0 / 3), {1e-6, 0}));
}

TEST(Router, NanLogitsAreChosenFirstSoThatTheyReachTheLoss) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    Problem p(2, 5, 2, mode);
    p.logits = {0, 1, -kNan, 3, kNan, kNan, kNan, kNan, kNan, kNan};

    p.route(*ctx);

    EXPECT_EQ(p.ids, (Ids{2, 4, 0, 1}));
    for (const float w : p.weights) EXPECT_TRUE(std::isnan(w)) << name_of(mode);
  }
}

TEST(Router, ExtremeLogitsGiveFiniteWeights) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    Problem p(2, 4, 2, mode);
    p.logits = {3e4F, -3e4F, 0, 100, -90, -200, -3e4F, -100};

    p.route(*ctx);

    EXPECT_EQ(p.ids, (Ids{0, 3, 0, 3}));
    for (const float w : p.weights) EXPECT_TRUE(std::isfinite(w) && w >= 0) << name_of(mode);
    EXPECT_FLOAT_EQ(
        p.weights[0],
        mode.routed_scale * (mode.score == ScoreFunction::sigmoid && mode.norm_topk ? 0.5F : 1.0F));
  }
}

TEST(Router, RefusesMoreChoicesThanExperts) {
  const CpuContext ctx;
  Problem p(2, 3, 4, {});
  EXPECT_THROW(p.route(*ctx), Error);
  Problem zero_scale(2, 3, 1, {ScoreFunction::softmax, true, false, 0.0F});
  EXPECT_THROW(zero_scale.route(*ctx), Error);
}

// ---- statistics ------------------------------------------------------------------------------

TEST(RouterStatistics, MatchSumsOverTokens) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    for (const std::int64_t S : {1, 3}) {
      SCOPED_TRACE(name_of(mode) + " S " + std::to_string(S));
      Problem p(3 * 301, 19, 4, mode);
      p.route(*ctx);

      const Statistics got = statistics(*ctx, p, S);

      expect_statistics(got, p, S);
    }
  }
}

TEST(RouterStatistics, AreZeroWithoutTokens) {
  const CpuContext ctx;
  Problem p(0, 5, 2, {});
  p.route(*ctx);

  const Statistics got = statistics(*ctx, p, 2);

  EXPECT_EQ(got.counts, std::vector<std::int64_t>(10, 0));
  EXPECT_EQ(got.fractions, std::vector<float>(10, 0.0F));
  EXPECT_EQ(got.prob_sums, Doubles(10, 0.0));
  EXPECT_EQ(got.scalars, Doubles(3, 0.0));
}

}  // namespace
}  // namespace grist
