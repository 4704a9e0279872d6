#include "grist/ops/cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "grist/core/error.h"
#include "grist/core/memory.h"
#include "ops/cross_entropy_reference.h"
#include "support/compare.h"
#include "support/gradient.h"

namespace grist {
namespace {

using test::close;
using test::CpuContext;
using test::normals;
using test::tolerance;
using test::view;
using test::widen;
using Case = test::CrossEntropyCase;
using Doubles = std::vector<double>;
using Judge = test::CrossEntropyJudge;

// The operation under test, with every operand.
struct Trial {
  explicit Trial(const Case& c_in, float scale = 0.3F)
      : c(c_in),
        x(normals(c.N * c.D, "x")),
        w(normals(c.V * c.D, "w", scale)),
        dx(x.size(), 99.0F),
        dw(w.size()),
        losses(static_cast<std::size_t>(c.N), 99.0F),
        z(static_cast<std::size_t>(c.N), 99.0F),
        targets(test::some_targets(c)) {}
  ops::LinearCrossEntropy args(const Context& ctx, bool gradients = true) {
    const Shape shape{c.V, c.D};
    packed = Buffer(ops::weight_bytes(Device::cpu, DType::f32, shape), Device::cpu, "weight");
    const ops::WeightView weight{
        .data = packed.data(), .device = Device::cpu, .dtype = DType::f32, .shape = shape};
    ops::refresh_weight(ctx, {.out = weight, .master = view(std::as_const(w), shape)});
    return {.losses = view(losses, {c.N}),
            .z = z_coeff != 0 ? view(z, {c.N}) : TensorView{},
            .dx = gradients ? view(dx, {c.N, c.D}) : TensorView{},
            .dw = gradients ? view(dw, {c.V, c.D}) : TensorView{},
            .x = view(std::as_const(x), {c.N, c.D}),
            .w = weight,
            .targets = view(std::as_const(targets), {c.N}),
            .grad_scale = {&grad_scale, DType::f32, {1}},
            .z_coeff = z_coeff,
            .accumulate = true};
  }
  void run(const Context& ctx) { ops::linear_cross_entropy(ctx, args(ctx)); }
  Judge judge() const {
    return {c, widen(x), widen(w), targets, 0.25, static_cast<double>(z_coeff)};
  }

  Case c;
  std::vector<float> x, w, dx, dw, losses, z;
  std::vector<std::int32_t> targets;
  float grad_scale = 0.25F;
  float z_coeff = 0.0F;
  Buffer packed;
};

class LinearCrossEntropy : public ::testing::TestWithParam<Case> {};

TEST_P(LinearCrossEntropy, MatchesFormula) {
  const Case c = GetParam();
  const CpuContext ctx;
  Trial trial(c);
  trial.dw = normals(c.V * c.D, "dw before");
  const auto before = widen(trial.dw);

  trial.run(*ctx);

  Judge judge = trial.judge();
  for (std::size_t i = 0; i < before.size(); ++i) judge.dw[i] += before[i];
  EXPECT_TRUE(close(trial.losses, judge.losses, {1e-5, 1e-5}));
  EXPECT_TRUE(close(trial.dx, judge.dx, tolerance(c.D)));
  EXPECT_TRUE(close(trial.dw, judge.dw, tolerance(c.N)));
}

INSTANTIATE_TEST_SUITE_P(Shapes, LinearCrossEntropy,
                         ::testing::Values(Case{0, 8, 40}, Case{1, 1, 1}, Case{3, 5, 33},
                                           Case{64, 16, 100}, Case{7, 24, 1031},
                                           Case{1100, 6, 50},     // more than one chunk
                                           Case{300, 4, 8200}));  // chunks of 256

TEST(LinearCrossEntropyGradient, EqualsFiniteDifferences) {
  const Case c{4, 3, 5};
  const CpuContext ctx;
  Trial trial(c);
  trial.targets = {0, 4, -1, 2};

  trial.run(*ctx);

  Doubles x = widen(trial.x), w = widen(trial.w);
  const auto loss = [&] {
    const Judge judge(c, x, w, trial.targets, 0.25);
    double sum = 0;
    for (const double l : judge.losses) sum += 0.25 * l;
    return sum;
  };
  EXPECT_TRUE(close(trial.dx, test::numeric_gradient(x, loss), {1e-5, 1e-6}));
  EXPECT_TRUE(close(trial.dw, test::numeric_gradient(w, loss), {1e-5, 1e-6}));
}

TEST_P(LinearCrossEntropy, AddsTheSquaredLogSumToTheGradients) {
  const Case c = GetParam();
  const CpuContext ctx;
  Trial plain(c), trial(c);
  trial.z_coeff = 0.05F;

  plain.run(*ctx);
  trial.run(*ctx);

  const Judge judge = trial.judge();
  EXPECT_EQ(trial.losses, plain.losses);
  EXPECT_TRUE(close(trial.z, judge.z, {1e-5, 1e-5}));
  EXPECT_TRUE(close(trial.dx, judge.dx, tolerance(c.D)));
  EXPECT_TRUE(close(trial.dw, judge.dw, tolerance(c.N)));
}

TEST(LinearCrossEntropyGradient, WithTheZLossEqualsFiniteDifferences) {
  const Case c{4, 3, 5};
  const CpuContext ctx;
  Trial trial(c);
  trial.targets = {0, 4, -1, 2};
  trial.z_coeff = 0.1F;

  trial.run(*ctx);

  Doubles x = widen(trial.x), w = widen(trial.w);
  const auto loss = [&] {
    const Judge judge(c, x, w, trial.targets, 0.25);
    double sum = 0;
    for (std::size_t n = 0; n < judge.losses.size(); ++n)
      sum += 0.25 * (judge.losses[n] + static_cast<double>(trial.z_coeff) * judge.z[n]);
    return sum;
  };
  EXPECT_TRUE(close(trial.dx, test::numeric_gradient(x, loss), {1e-5, 1e-6}));
  EXPECT_TRUE(close(trial.dw, test::numeric_gradient(w, loss), {1e-5, 1e-6}));
}

TEST(LinearCrossEntropyMask, CountsNothing) {
  const CpuContext ctx;
  Trial trial(Case{40, 7, 19});
  std::fill(trial.targets.begin(), trial.targets.end(), -1);
  trial.dw.assign(trial.dw.size(), 3.0F);
  trial.run(*ctx);
  EXPECT_EQ(trial.losses, std::vector<float>(40, 0.0F));
  EXPECT_EQ(trial.dx, std::vector<float>(280, 0.0F));
  EXPECT_EQ(trial.dw, std::vector<float>(trial.dw.size(), 3.0F));
}

TEST(LinearCrossEntropyExtremes, LargeLogitsDoNotOverflow) {
  const Case c{20, 8, 50};
  const CpuContext ctx;
  Trial trial(c, 3000.0F);  // logits of the order of 1e4
  trial.run(*ctx);
  Judge judge = trial.judge();
  EXPECT_TRUE(close(trial.losses, judge.losses, {1e-5, 0.05}));
  for (const auto* x : {&trial.dx, &trial.dw})
    for (const float value : *x) ASSERT_TRUE(std::isfinite(value));
}

TEST(LinearCrossEntropyExtremes, NanIsNotHidden) {
  const CpuContext ctx;
  Trial trial(Case{3, 4, 6});
  trial.x[4] = std::numeric_limits<float>::quiet_NaN();
  trial.run(*ctx);
  EXPECT_TRUE(std::isfinite(trial.losses[0]));
  EXPECT_TRUE(std::isnan(trial.losses[1]));
  EXPECT_TRUE(std::isfinite(trial.losses[2]));
}

TEST(LinearCrossEntropyModes, ForwardAloneAndOverwriting) {
  const Case c{1030, 9, 37};
  const CpuContext ctx;
  Trial both(c), forward(c), overwrite(c);
  both.run(*ctx);

  ops::linear_cross_entropy(*ctx, forward.args(*ctx, false));
  EXPECT_EQ(forward.losses, both.losses);
  EXPECT_EQ(forward.dx, std::vector<float>(forward.dx.size(), 99.0F));

  overwrite.dw.assign(overwrite.dw.size(), std::numeric_limits<float>::quiet_NaN());
  auto args = overwrite.args(*ctx);
  args.accumulate = false;
  ops::linear_cross_entropy(*ctx, args);
  EXPECT_EQ(overwrite.dw, both.dw);
  EXPECT_EQ(overwrite.dx, both.dx);

  Trial none(Case{0, 4, 6});
  none.dw.assign(none.dw.size(), 5.0F);
  ops::linear_cross_entropy(*ctx, none.args(*ctx));
  EXPECT_EQ(none.dw, std::vector<float>(24, 5.0F));
  args = none.args(*ctx);
  args.accumulate = false;
  ops::linear_cross_entropy(*ctx, args);
  EXPECT_EQ(none.dw, std::vector<float>(24, 0.0F));
}

// Neither threads nor where a call's rows begin and end change a bit: 1500 rows at once, or 700 and
// then 800.
TEST(LinearCrossEntropyBits, DoNotDependOnThreadsOrChunks) {
  const Case c{1500, 10, 45};
  const CpuContext one(1), two(2);
  Trial a(c), b(c), parts(c);
  a.run(*one);
  b.run(*two);
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.dx, b.dx);
  EXPECT_EQ(a.dw, b.dw);

  const auto args = parts.args(*two);
  for (const auto& [begin, end] : {std::pair{0, 700}, std::pair{700, 1500}}) {
    auto part = args;
    part.losses = rows(args.losses, begin, end);
    part.dx = rows(args.dx, begin, end);
    part.x = rows(args.x, begin, end);
    part.targets = rows(args.targets, begin, end);
    ops::linear_cross_entropy(*two, part);
  }
  EXPECT_EQ(parts.losses, a.losses);
  EXPECT_EQ(parts.dx, a.dx);
  EXPECT_EQ(parts.dw, a.dw);
}

TEST(LinearCrossEntropyErrors, RejectsBrokenContracts) {
  const CpuContext ctx;
  Trial trial(Case{4, 3, 6});
  EXPECT_NO_THROW(trial.run(*ctx));
  trial.targets[2] = 6;
  EXPECT_THROW(trial.run(*ctx), Error);
  trial.targets[2] = 5;
  auto args = trial.args(*ctx);
  args.dw = {};
  EXPECT_THROW(ops::linear_cross_entropy(*ctx, args), Error);
  args = trial.args(*ctx);
  args.grad_scale = {};
  EXPECT_THROW(ops::linear_cross_entropy(*ctx, args), Error);
  args = trial.args(*ctx);
  args.z_coeff = 0.1F;
  EXPECT_THROW(ops::linear_cross_entropy(*ctx, args), Error);
  args = trial.args(*ctx);
  args.targets.dtype = DType::i64;
  EXPECT_THROW(ops::linear_cross_entropy(*ctx, args), Error);
  args = trial.args(*ctx);
  args.w.shape = {3, 6};
  EXPECT_THROW(ops::linear_cross_entropy(*ctx, args), Error);
  Context bare;
  EXPECT_THROW(ops::linear_cross_entropy(bare, trial.args(*ctx)), Error);
}

}  // namespace
}  // namespace grist
