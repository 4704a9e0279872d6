#include "grist/ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "grist/core/error.h"
#include "ops/rope_reference.h"
#include "support/compare.h"
#include "support/gradient.h"

namespace grist {
namespace {

using test::close;
using test::CpuContext;
using test::normals;
using test::some_positions;
using test::view;
using test::widen;

using Case = test::RopeShape;

std::vector<float> make_table(const Context& ctx, std::int64_t P, std::int64_t Dh, double theta) {
  std::vector<float> table(static_cast<std::size_t>(P * Dh));
  ops::rope_table(ctx, {.table = view(table, {P, Dh}), .theta = theta});
  return table;
}

TEST(RopeTable, IsTheRoundedFormula) {
  const CpuContext ctx;
  const auto table = make_table(*ctx, 300, 6, 500000.0);

  std::vector<double> want(table.size());
  for (std::size_t p = 0; p < 300; ++p) {
    for (std::size_t i = 0; i < 3; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(500000.0, -2.0 * static_cast<double>(i) / 6.0);
      want[p * 6 + i] = std::cos(angle);
      want[p * 6 + 3 + i] = std::sin(angle);
    }
  }
  EXPECT_TRUE(close(table, want, {6.1e-8, 1e-12}));
}

class Rope : public ::testing::TestWithParam<Case> {};

TEST_P(Rope, RotatesEachPairAndBack) {
  const Case c = GetParam();
  const CpuContext ctx;
  const std::int64_t P = 41;
  const auto table = make_table(*ctx, P, c.Dh, 10000.0);
  const auto positions = some_positions(c.N, P);
  const auto before = normals(c.N * c.H * c.Dh, "x");
  auto x = before;
  ops::Rope rope{.x = view(x, {c.N, c.H, c.Dh}),
                 .positions = view(positions, {c.N}),
                 .table = view(table, {P, c.Dh})};

  ops::rope(*ctx, rope);

  const auto want = test::rope_reference(before, c, positions, 10000.0);
  EXPECT_TRUE(close(x, want, {1e-6, 1e-6}));

  rope.inverse = true;
  ops::rope(*ctx, rope);
  EXPECT_TRUE(close(x, widen(before), {1e-6, 1e-6}));
}

INSTANTIATE_TEST_SUITE_P(Shapes, Rope,
                         ::testing::Values(Case{0, 2, 8}, Case{1, 1, 2}, Case{5, 3, 6},
                                           Case{67, 2, 34}, Case{33, 4, 64}, Case{3, 1, 128}));

// <dy, rope(x)> has the gradient inverse(dy).
TEST(RopeGradient, EqualsFiniteDifferences) {
  const CpuContext ctx;
  const std::int64_t N = 3, H = 2, Dh = 6, P = 9;
  const auto table = make_table(*ctx, P, Dh, 100.0);
  const auto positions = some_positions(N, P);
  const auto dy = normals(N * H * Dh, "dy");
  auto dx = dy;

  ops::rope(*ctx, {.x = view(dx, {N, H, Dh}),
                   .positions = view(positions, {N}),
                   .table = view(table, {P, Dh}),
                   .inverse = true});

  auto x = widen(normals(N * H * Dh, "x"));
  const auto loss = [&] {
    double sum = 0;
    for (std::size_t row = 0; row < 6; ++row) {
      const auto* t = &table[static_cast<std::size_t>(positions[row / 2]) * 6];
      for (std::size_t i = 0; i < 3; ++i) {
        const std::size_t low = row * 6 + i, high = low + 3;
        const auto cosine = static_cast<double>(t[i]), sine = static_cast<double>(t[i + 3]);
        sum += static_cast<double>(dy[low]) * (x[low] * cosine - x[high] * sine);
        sum += static_cast<double>(dy[high]) * (x[high] * cosine + x[low] * sine);
      }
    }
    return sum;
  };
  EXPECT_TRUE(close(dx, test::numeric_gradient(x, loss), {1e-5, 1e-6}));
}

TEST(RopeDeterminism, ThreadsDoNotChangeBits) {
  const CpuContext one(1), two(2);
  const auto table = make_table(*one, 64, 20, 10000.0);
  EXPECT_EQ(table, make_table(*two, 64, 20, 10000.0));
  const auto positions = some_positions(100, 64);
  auto a = normals(100 * 3 * 20, "x");
  auto b = a;
  for (const auto& [ctx, x] : {std::pair{&one, &a}, std::pair{&two, &b}}) {
    ops::rope(**ctx, {.x = view(*x, {100, 3, 20}),
                      .positions = view(positions, {100}),
                      .table = view(table, {64, 20})});
  }
  EXPECT_EQ(a, b);
}

TEST(RopeErrors, RejectsBrokenContracts) {
  const CpuContext ctx;
  const auto table = make_table(*ctx, 4, 8, 10000.0);
  const auto before = normals(2 * 1 * 8, "x");
  auto x = before;
  std::vector<std::int32_t> positions{0, 4};  // 4 is past the table
  const ops::Rope rope{.x = view(x, {2, 1, 8}),
                       .positions = view(std::as_const(positions), {2}),
                       .table = view(table, {4, 8})};
  EXPECT_THROW(ops::rope(*ctx, rope), Error);
  positions[1] = -1;
  EXPECT_THROW(ops::rope(*ctx, rope), Error);
  EXPECT_EQ(x, before);
  positions[1] = 3;
  EXPECT_NO_THROW(ops::rope(*ctx, rope));
  auto wrong = rope;
  wrong.table.shape = {8, 4};
  EXPECT_THROW(ops::rope(*ctx, wrong), Error);
  wrong = rope;
  wrong.positions.dtype = DType::i64;
  EXPECT_THROW(ops::rope(*ctx, wrong), Error);
  std::vector<float> odd(6);
  EXPECT_THROW(ops::rope_table(*ctx, {.table = view(odd, {2, 3})}), Error);
}

}  // namespace
}  // namespace grist
