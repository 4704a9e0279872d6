// The router on the device: ids and weights with the CPU's bits, statistics and gradients against
// float64.
#include "cuda/fixture.h"
#include "ops/router_gradient_reference.h"

namespace grist {
namespace {

using namespace test;

struct Shape3 {
  std::int64_t N, E, K;
};
// Tokens a block +-1, experts that fill no row of lanes, more choices than lanes, the largest E.
const Shape3 kShapes[] = {{1, 1, 1},   {7, 8, 2},   {16, 16, 16}, {17, 128, 8}, {33, 37, 5},
                          {3, 200, 9}, {5, 20, 17}, {2, 512, 64}, {3, 4096, 4}};

// Sets ids and weights of `p` by the device.
void route_on_device(const Context& ctx, Problem& p, const std::vector<float>& bias = {}) {
  const OnDevice ids(ctx, DType::i32, {p.N, p.K}), weights(ctx, DType::f32, {p.N, p.K});
  const OnDevice logits(ctx, p.logits, {p.N, p.E});
  const OnDevice device_bias(ctx, bias, {static_cast<std::int64_t>(bias.size())});
  ops::RouterForward a{.ids = ids, .weights = weights, .logits = logits, .mode = p.mode};
  if (!bias.empty()) a.bias = device_bias;
  ops::router_forward(ctx, a);
  p.ids = ids.host<std::int32_t>();
  p.weights = weights.floats();
}

void expect_routes_alike(const Context& device, Problem p, const std::vector<float>& bias = {}) {
  const CpuContext cpu;
  Problem want = p;
  want.route(*cpu, bias);
  route_on_device(device, p, bias);
  EXPECT_EQ(p.ids, want.ids) << name_of(p.mode) << " E " << p.E;
  EXPECT_EQ(p.weights, want.weights) << name_of(p.mode) << " E " << p.E;
}

TEST(CudaRouter, ChoosesAndWeighsWithTheBitsOfTheCpu) {
  const CudaContext ctx;
  const std::vector<RouterMode> all = modes();
  for_each_schedule([&] {
    for (std::size_t i = 0; i < std::size(kShapes); ++i) {
      const Shape3& s = kShapes[i];
      expect_routes_alike(*ctx, Problem(s.N, s.E, s.K, all[i % all.size()]));
    }
  });
}

TEST(CudaRouter, BiasMovesTheChoiceAndNotTheWeights) {
  const CudaContext ctx;
  const std::vector<float> bias = normals(37, "router.bias", 0.3F);
  for_each_schedule([&] {
    for (const RouterMode& mode : modes()) {
      Problem p(19, 37, 5, mode);
      expect_routes_alike(*ctx, p, bias);
    }
  });
}

// Scores that a bias brings close together, so that an ulp of a score would change the choice.
TEST(CudaRouter, NearTiesOfBiasedScoresGoAsOnTheCpu) {
  const CudaContext ctx;
  for (const RouterMode& mode : modes()) {
    Problem p(64, 48, 6, mode);
    for (std::size_t i = 0; i < p.logits.size(); ++i)
      p.logits[i] = 1.0F + 1e-7F * static_cast<float>(i * 37 % 101);
    expect_routes_alike(*ctx, p, std::vector<float>(48, 0.125F));
  }
}

TEST(CudaRouter, TiesGoToTheLowerExpertIdAndNanIsChosenFirst) {
  const CudaContext ctx;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for_each_schedule([&] {
    Problem p(4, 6, 3, {});
    p.logits = {1, 2,     2, 1, 2,    2, -0.0F, 0.0F, -1,   -0.0F, 0.0F, -2,
                0, -kNan, 1, 3, kNan, 2, kNan,  kNan, kNan, kNan,  kNan, kNan};
    route_on_device(*ctx, p);
    EXPECT_EQ(p.ids, (Ids{1, 2, 4, 0, 1, 3, 1, 4, 3, 0, 1, 2}));
    EXPECT_TRUE(close(p.weights.data(), Doubles(6, 1.0 / 3).data(), 6, {1e-6, 0}));
    for (std::size_t i = 6; i < 12; ++i) EXPECT_TRUE(std::isnan(p.weights[i]));
  });
}

TEST(CudaRouter, ExtremeLogitsRouteAsOnTheCpu) {
  const CudaContext ctx;
  for (const RouterMode& mode : modes()) {
    Problem p(2, 4, 2, mode);
    p.logits = {3e4F, -3e4F, 0, 100, -90, -200, -3e4F, -100};
    expect_routes_alike(*ctx, p);
    expect_routes_alike(*ctx, p, {0, 1, -1, 0.5F});
  }
}

// ---- statistics ------------------------------------------------------------------------------

Statistics device_statistics(const Context& ctx, const Problem& p, std::int64_t S) {
  const OnDevice counts(ctx, DType::i64, {S, p.E}), fractions(ctx, DType::f32, {S, p.E});
  const OnDevice prob_sums(ctx, DType::f64, {S, p.E}), scalars(ctx, DType::f64, {3});
  const OnDevice logits(ctx, p.logits, {p.N, p.E}), ids(ctx, p.ids, {p.N, p.K});
  const OnDevice weights(ctx, p.weights, {p.N, p.K});
  ops::router_statistics(ctx, {.counts = counts,
                               .fractions = fractions,
                               .prob_sums = prob_sums,
                               .scalars = scalars,
                               .logits = logits,
                               .ids = ids,
                               .weights = weights,
                               .mode = p.mode});
  return {counts.host<std::int64_t>(), fractions.floats(), prob_sums.host<double>(),
          scalars.host<double>()};
}

TEST(CudaRouterStatistics, MatchSumsOverTokens) {
  const CudaContext ctx;
  const CpuContext cpu;
  const std::vector<RouterMode> all = modes();
  for_each_schedule([&] {
    for (std::size_t i = 0; i < 5; ++i) {
      const std::int64_t S = i % 2 == 0 ? 1 : 3;
      SCOPED_TRACE(name_of(all[i]) + " S " + std::to_string(S));
      Problem p(3 * 67, i == 2 ? 130 : 19, 4, all[i]);  // a chunk and more, 128 experts and more
      p.route(*cpu);
      expect_statistics(device_statistics(*ctx, p, S), p, S);
    }
  });
}

TEST(CudaRouterStatistics, AreZeroWithoutTokens) {
  const CudaContext ctx;
  Problem p(0, 5, 2, {});
  const Statistics got = device_statistics(*ctx, p, 2);
  EXPECT_EQ(got.counts, std::vector<std::int64_t>(10, 0));
  EXPECT_EQ(got.fractions, std::vector<float>(10, 0.0F));
  EXPECT_EQ(got.prob_sums, Doubles(10, 0.0));
  EXPECT_EQ(got.scalars, Doubles(3, 0.0));
}

// ---- backward --------------------------------------------------------------------------------

std::vector<float> device_gradient(const Context& ctx, const Problem& p,
                                   const std::vector<float>& dw, const Losses& losses) {
  const OnDevice dlogits(ctx, DType::f32, {p.N, p.E}), logits(ctx, p.logits, {p.N, p.E});
  const OnDevice ids(ctx, p.ids, {p.N, p.K}), weights(ctx, p.weights, {p.N, p.K});
  const OnDevice drow_weight(ctx, dw, {p.N * p.K}), slots(ctx, slot_rows(p), {p.N, p.K});
  const OnDevice f(ctx, fractions(p, losses.S), {losses.S, p.E});
  ops::RouterBackward a{.dlogits = dlogits,
                        .logits = logits,
                        .ids = ids,
                        .weights = weights,
                        .drow_weight = drow_weight,
                        .slot_row = slots,
                        .aux_scale = losses.aux_scale,
                        .z_scale = losses.z_scale,
                        .mode = p.mode};
  if (losses.aux_scale != 0.0F) a.load_fraction = f;
  ops::router_backward(ctx, a);
  return dlogits.floats();
}

TEST(CudaRouterBackward, MatchesCentralDifferencesOfTheLoss) {
  const CudaContext ctx;
  const CpuContext cpu;
  std::vector<std::pair<Problem, Losses>> cases;
  for (const RouterMode& mode : modes()) {
    for (const Losses& losses : kLosses) {
      cases.emplace_back(Problem(12, 11, 3, mode), losses);
      cases.back().first.route(*cpu);
    }
  }
  const std::vector<float> dw = normals(12 * 3, "router.dw");
  for_each_schedule([&] {
    for (const auto& [p, losses] : cases) {
      SCOPED_TRACE(name_of(p.mode) + " aux " + std::to_string(losses.aux_scale) + " S " +
                   std::to_string(losses.S) + " z " + std::to_string(losses.z_scale));
      const std::vector<float> got = device_gradient(*ctx, p, dw, losses);
      EXPECT_TRUE(close(got, central_differences(p, dw, losses), {3e-6, 5e-7}));
    }
  });
}

TEST(CudaRouterBackward, MatchesTheFormulaAtManyShapes) {
  const CudaContext ctx;
  const CpuContext cpu;
  const std::vector<RouterMode> all = modes();
  for (std::size_t i = 0; i < 8; ++i) {  // the largest takes central differences too long
    const Shape3& s = kShapes[i];
    SCOPED_TRACE("E " + std::to_string(s.E) + " " + name_of(all[i]));
    Problem p(std::min<std::int64_t>(s.N, 3), s.E, s.K, all[i]);
    p.route(*cpu);
    const std::vector<float> dw = normals(p.N * p.K, "router.dw");
    const Losses losses{1, 0.3F, 0.02F};
    const Doubles want = central_differences(p, dw, losses);
    for_each_schedule([&] {
      EXPECT_TRUE(close(device_gradient(*ctx, p, dw, losses), want, {3e-6, 5e-7}));
    });
  }
}

// A token's bits do not depend on its neighbours. slot_rows() drops alike for tokens 0 and 35.
TEST(CudaRouter, ATokensResultDependsOnItsRowAlone) {
  const CudaContext ctx;
  constexpr int kToken = 35;
  for (const RouterMode& mode : modes()) {
    SCOPED_TRACE(name_of(mode));
    Problem p(40, 21, 4, mode), one(1, 21, 4, mode);
    std::copy_n(p.logits.begin() + kToken * 21, 21, one.logits.begin());
    route_on_device(*ctx, p);
    route_on_device(*ctx, one);

    const std::vector<float> dw(40 * 4, 0.5F);
    const std::vector<float> all = device_gradient(*ctx, p, dw, {1, 0, 0.01F});
    const std::vector<float> single =
        device_gradient(*ctx, one, std::vector<float>(4, 0.5F), {1, 0, 0.01F});

    EXPECT_TRUE(std::equal(one.ids.begin(), one.ids.end(), p.ids.begin() + kToken * 4));
    EXPECT_TRUE(std::equal(one.weights.begin(), one.weights.end(), p.weights.begin() + kToken * 4));
    EXPECT_TRUE(std::equal(single.begin(), single.end(), all.begin() + kToken * 21));
  }
}

}  // namespace
}  // namespace grist
