#include "grist/ops/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "grist/core/error.h"
#include "ops/swiglu_reference.h"
#include "support/compare.h"
#include "support/gradient.h"

namespace grist {
namespace {

using test::close;
using test::CpuContext;
using test::normals;
using test::view;
using test::widen;
using Doubles = std::vector<double>;

struct Case {
  std::int64_t N, F;
};

std::vector<float> backward(const Context& ctx, const std::vector<float>& z,
                            const std::vector<float>& da, const Case& c) {
  std::vector<float> dz(z.size());
  ops::swiglu_backward(
      ctx,
      {.dz = view(dz, {c.N, 2 * c.F}), .da = view(da, {c.N, c.F}), .z = view(z, {c.N, 2 * c.F})});
  return dz;
}

std::vector<float> forward(const Context& ctx, const std::vector<float>& z, const Case& c) {
  std::vector<float> a(static_cast<std::size_t>(c.N * c.F));
  ops::swiglu_forward(ctx, {.a = view(a, {c.N, c.F}), .z = view(z, {c.N, 2 * c.F})});
  return a;
}

class Swiglu : public ::testing::TestWithParam<Case> {};

TEST_P(Swiglu, MatchesFormula) {
  const Case c = GetParam();
  const CpuContext ctx;
  const auto z = normals(c.N * 2 * c.F, "z", 3.0F);
  const auto da = normals(c.N * c.F, "da");

  const auto a = forward(*ctx, z, c);
  const auto dz = backward(*ctx, z, da, c);

  const auto N = static_cast<std::size_t>(c.N), F = static_cast<std::size_t>(c.F);
  const Doubles wide = widen(z);
  EXPECT_TRUE(close(a, test::swiglu_reference(wide, N, F), {1e-6, 1e-7}));
  const Doubles want = test::swiglu_gradient(wide, widen(da), N, F);
  EXPECT_TRUE(close(dz, want, {2e-6, 1e-6}));
}

INSTANTIATE_TEST_SUITE_P(Shapes, Swiglu,
                         ::testing::Values(Case{0, 4}, Case{1, 1}, Case{3, 257}, Case{70, 33},
                                           Case{2, 2048}));

TEST(SwigluGradient, EqualsFiniteDifferences) {
  const Case c{3, 5};
  const CpuContext ctx;
  const auto z = normals(30, "z");
  const auto da = normals(15, "da");

  Doubles wide = widen(z);
  const auto loss = [&] { return test::dot(test::swiglu_reference(wide, 3, 5), widen(da)); };
  EXPECT_TRUE(close(backward(*ctx, z, da, c), test::numeric_gradient(wide, loss), {1e-5, 1e-6}));
}

TEST(SwigluExtremes, StayFinite) {
  const Case c{1, 4};
  const CpuContext ctx;
  const std::vector<float> z{-1e4F, 1e4F, -100.0F, 0.0F, 2.0F, 2.0F, 2.0F, 2.0F};

  const auto a = forward(*ctx, z, c);
  const auto dz = backward(*ctx, z, {1, 1, 1, 1}, c);

  EXPECT_TRUE(close(a, {0, 2e4, 0, 0}, {1e-6, 1e-30}));
  EXPECT_TRUE(close(dz, {0, 2, 0, 1, 0, 1e4, 0, 0}, {1e-6, 1e-30}));
}

TEST(SwigluExtremes, NanIsNotHidden) {
  const Case c{1, 2};
  const CpuContext ctx;
  const std::vector<float> z{std::numeric_limits<float>::quiet_NaN(), 1.0F, 1.0F, 1.0F};
  EXPECT_TRUE(std::isnan(forward(*ctx, z, c)[0]));
  EXPECT_TRUE(std::isnan(backward(*ctx, z, {1, 1}, c)[0]));
  EXPECT_FALSE(std::isnan(forward(*ctx, z, c)[1]));
}

TEST(SwigluBits, DoNotDependOnThreadsRowsOrAliasing) {
  const Case c{67, 45};
  const CpuContext one(1), two(2);
  auto z = normals(c.N * 2 * c.F, "z");
  const auto da = normals(c.N * c.F, "da");
  const auto a = forward(*one, z, c);
  const auto dz = backward(*one, z, da, c);
  EXPECT_EQ(forward(*two, z, c), a);
  EXPECT_EQ(backward(*two, z, da, c), dz);
  const std::vector<float> last(z.end() - 2 * c.F, z.end());
  EXPECT_EQ(forward(*two, last, {1, c.F}), std::vector<float>(a.end() - c.F, a.end()));
  ops::swiglu_backward(*two, {.dz = view(z, {c.N, 2 * c.F}),
                              .da = view(da, {c.N, c.F}),
                              .z = view(std::as_const(z), {c.N, 2 * c.F})});
  EXPECT_EQ(z, dz);
}

TEST(SwigluErrors, RejectsBrokenContracts) {
  const CpuContext ctx;
  std::vector<float> a(6), z(12);
  EXPECT_THROW(ops::swiglu_forward(*ctx, {.a = view(a, {2, 3}), .z = view(z, {4, 3})}), Error);
  auto bf16 = view(z, {2, 6});
  bf16.dtype = DType::bf16;
  EXPECT_THROW(ops::swiglu_forward(*ctx, {.a = view(a, {2, 3}), .z = bf16}), Error);
  EXPECT_THROW(ops::swiglu_backward(*ctx, {.dz = view(z, {2, 6}), .da = view(a, {3, 2}), .z = {}}),
               Error);
}

}  // namespace
}  // namespace grist
