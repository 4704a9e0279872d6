// Gradients of the router against central differences of the float64 loss with the choice held
// constant; and bits that must not depend on threads or neighbours.
#include <limits>
#include <tuple>

#include "grist/core/error.h"
#include "ops/router_gradient_reference.h"

namespace grist {
namespace {

using namespace test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> gradient(const Context& ctx, const Problem& p, const std::vector<float>& dw,
                            const Losses& losses) {
  std::vector<float> dlogits(p.logits.size(), kNan);
  const Ids slots = slot_rows(p);
  const std::vector<float> f = fractions(p, losses.S);
  ops::RouterBackward a{.dlogits = view(dlogits, {p.N, p.E}),
                        .logits = view(p.logits, {p.N, p.E}),
                        .ids = view(p.ids, {p.N, p.K}),
                        .weights = view(p.weights, {p.N, p.K}),
                        .drow_weight = view(dw, {p.N * p.K}),
                        .slot_row = view(slots, {p.N, p.K}),
                        .aux_scale = losses.aux_scale,
                        .z_scale = losses.z_scale,
                        .mode = p.mode};
  if (losses.aux_scale != 0.0F) a.load_fraction = view(f, {losses.S, p.E});
  ops::router_backward(ctx, a);
  return dlogits;
}

TEST(RouterBackward, MatchesCentralDifferencesOfTheLoss) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    for (const Losses& losses : kLosses) {
      SCOPED_TRACE(name_of(mode) + " aux " + std::to_string(losses.aux_scale) + " S " +
                   std::to_string(losses.S) + " z " + std::to_string(losses.z_scale));
      Problem p(12, 11, 3, mode);
      p.route(*ctx);
      const std::vector<float> dw = normals(p.N * p.K, "router.dw");

      const std::vector<float> got = gradient(*ctx, p, dw, losses);

      EXPECT_TRUE(close(got, central_differences(p, dw, losses), {3e-6, 5e-7}));
    }
  }
}

// The same through our own forward pass, in fp32 and along one direction, at a larger shape.
TEST(RouterBackward, IsTheSlopeOfRouterForward) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    SCOPED_TRACE(name_of(mode));
    Problem p(40, 64, 8, mode);
    p.route(*ctx);
    // A gap between chosen and other logits keeps the choice constant over the step.
    for (std::int64_t n = 0; n < p.N; ++n)
      for (std::int64_t k = 0; k < p.K; ++k) p.logits[p.at(n * p.E + p.chosen(n)[k])] += 0.5F;
    p.route(*ctx);
    const std::vector<float> dw = normals(p.N * p.K, "router.dw");
    const std::vector<float> direction = normals(p.N * p.E, "router.direction");
    const std::vector<float> dlogits = gradient(*ctx, p, dw, {});
    const Ids slots = slot_rows(p);
    double slope = 0;
    for (std::size_t i = 0; i < dlogits.size(); ++i)
      slope += static_cast<double>(dlogits[i]) * static_cast<double>(direction[i]);

    const auto moved = [&](float step) {
      Problem q = p;
      for (std::size_t i = 0; i < q.logits.size(); ++i) q.logits[i] += step * direction[i];
      q.route(*ctx);
      double loss = 0;
      for (std::int64_t n = 0; n < q.N; ++n)
        for (std::int64_t k = 0; k < q.K; ++k) {
          // The order may change along the way; the set may not.
          const auto* end = p.chosen(n) + p.K;
          const auto* found = std::find(p.chosen(n), end, q.chosen(n)[k]);
          EXPECT_NE(found, end) << "the choice is not constant; take a smaller step";
          const auto slot = Problem::at(n * p.K + (found - p.chosen(n)));
          if (slots[slot] >= 0)
            loss += static_cast<double>(dw[slot]) *
                    static_cast<double>(q.weights[Problem::at(n * p.K + k)]);
        }
      return loss;
    };
    constexpr float kStep = 1e-2F;
    EXPECT_NEAR((moved(kStep) - moved(-kStep)) / (2.0 * static_cast<double>(kStep)), slope,
                1e-3 * (1.0 + std::abs(slope)));
  }
}

TEST(RouterBackward, NormalisedPreSoftmaxIsSoftmaxAfterBitForBit) {
  const CpuContext ctx;
  Problem after(77, 33, 6, {ScoreFunction::softmax, false, false, 1.5F});
  Problem before(77, 33, 6, {ScoreFunction::softmax, true, true, 1.5F});
  const std::vector<float> dw = normals(77 * 6, "router.dw");

  after.route(*ctx);
  before.route(*ctx);

  EXPECT_EQ(after.ids, before.ids);
  EXPECT_EQ(after.weights, before.weights);
  const Losses losses{1, 0.1F, 0.01F};
  EXPECT_EQ(gradient(*ctx, after, dw, losses), gradient(*ctx, before, dw, losses));
}

TEST(RouterBackward, SoftmaxAfterWithOneChoiceHasNoGradient) {
  const CpuContext ctx;
  Problem p(9, 8, 1, {});
  p.route(*ctx);
  EXPECT_EQ(gradient(*ctx, p, normals(9, "router.dw"), {}), std::vector<float>(72, 0.0F));
}

TEST(Router, BitsDoNotDependOnThreads) {
  for (const RouterMode& mode : modes()) {
    const auto run = [&](int threads) {
      const CpuContext ctx(threads);
      Problem p(1030, 48, 6, mode);
      p.route(*ctx);
      const Statistics s = statistics(*ctx, p, 2);
      const std::vector<float> d =
          gradient(*ctx, p, normals(p.N * p.K, "router.dw"), {2, 0.1F, 0.01F});
      return std::tuple(p.ids, p.weights, s.counts, s.fractions, s.prob_sums, s.scalars, d);
    };
    EXPECT_EQ(run(1), run(5)) << name_of(mode);
  }
}

// A token's bits do not depend on its neighbours: needed by every split of a batch over ranks.
TEST(Router, ATokensResultDependsOnItsRowAlone) {
  const CpuContext ctx;
  for (const RouterMode& mode : modes()) {
    Problem p(70, 21, 4, mode);
    p.route(*ctx);
    Problem one(1, 21, 4, mode);
    std::copy_n(p.logits.begin() + 67 * 21, 21, one.logits.begin());

    one.route(*ctx);

    EXPECT_TRUE(std::equal(one.weights.begin(), one.weights.end(), p.weights.begin() + 67 * 4));
    EXPECT_TRUE(std::equal(one.ids.begin(), one.ids.end(), p.ids.begin() + 67 * 4));
  }
}

}  // namespace
}  // namespace grist
