// Gradients of the router against central differences of the float64 loss with the choice held
// constant; and bits that must not depend on threads or neighbours.
#include <limits>
#include <tuple>

#include "grist/core/error.h"
#include "ops/router_reference.h"

namespace grist {
namespace {

using namespace test;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Losses {
  std::int64_t S = 1;
  float aux_scale = 0.0F;
  float z_scale = 0.0F;
};

// Row r of the plan is slot r here; every fifth choice is dropped.
Ids slot_rows(const Problem& p) {
  Ids slots(Problem::at(p.N * p.K));
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = i % 5 == 4 ? -1 : static_cast<int>(i);
  return slots;
}

std::vector<float> fractions(const Problem& p, std::int64_t S) {
  std::vector<float> f = normals(S * p.E, "router.fractions");
  for (std::int64_t s = 0; s < S; ++s) {
    float sum = 0;
    for (std::int64_t e = 0; e < p.E; ++e) {
      float& v = f[Problem::at(s * p.E + e)];
      v = std::abs(v);
      sum += v;
    }
    for (std::int64_t e = 0; e < p.E; ++e) f[Problem::at(s * p.E + e)] /= sum;
  }
  return f;
}

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

// The part of the loss that token n's logits decide.
double token_loss(const Problem& p, std::int64_t n, const Doubles& l, const std::vector<float>& dw,
                  const Losses& losses) {
  const Ids slots = slot_rows(p);
  const std::vector<float> f = fractions(p, losses.S);
  const Doubles w = gate_weights(l, p.chosen(n), Problem::at(p.K), p.mode);
  double loss = static_cast<double>(losses.z_scale) * logsumexp(l) * logsumexp(l);
  for (std::int64_t k = 0; k < p.K; ++k) {
    const std::int32_t r = slots[Problem::at(n * p.K + k)];
    if (r >= 0) loss += w[Problem::at(k)] * static_cast<double>(dw[Problem::at(r)]);
  }
  const Doubles q = balance_probabilities(l, p.mode);
  const std::int64_t segment = p.N / losses.S;
  for (std::int64_t e = 0; e < p.E; ++e) {
    const double fe = static_cast<double>(f[Problem::at(n / segment * p.E + e)]);
    loss += static_cast<double>(losses.aux_scale) * static_cast<double>(p.E) * fe *
            q[Problem::at(e)] / static_cast<double>(segment);
  }
  return loss;
}

TEST(RouterBackward, MatchesCentralDifferencesOfTheLoss) {
  const CpuContext ctx;
  const Losses kLosses[] = {{1, 0, 0}, {1, 0.7F, 0}, {4, 0.7F, 0}, {1, 0, 0.05F}, {2, 0.3F, 0.02F}};
  for (const RouterMode& mode : modes()) {
    for (const Losses& losses : kLosses) {
      SCOPED_TRACE(name_of(mode) + " aux " + std::to_string(losses.aux_scale) + " S " +
                   std::to_string(losses.S) + " z " + std::to_string(losses.z_scale));
      Problem p(12, 11, 3, mode);
      p.route(*ctx);
      const std::vector<float> dw = normals(p.N * p.K, "router.dw");

      const std::vector<float> got = gradient(*ctx, p, dw, losses);

      Doubles want;
      for (std::int64_t n = 0; n < p.N; ++n) {
        for (std::int64_t e = 0; e < p.E; ++e) {
          constexpr double kStep = 1e-5;
          Doubles up = p.row(n);
          Doubles down = up;
          up[Problem::at(e)] += kStep;
          down[Problem::at(e)] -= kStep;
          want.push_back((token_loss(p, n, up, dw, losses) - token_loss(p, n, down, dw, losses)) /
                         (2 * kStep));
        }
      }
      EXPECT_TRUE(close(got, want, {3e-6, 5e-7}));
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
