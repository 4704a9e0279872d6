// Grouped matmuls of a MoE layer against double loops, with finite differences through the whole
// chain, uneven and empty experts.
#include "grist/ops/experts.h"

#include <gtest/gtest.h>

#include <numeric>

#include "grist/core/error.h"
#include "grist/core/memory.h"
#include "ops/experts_reference.h"

namespace grist {
namespace {

using namespace test::experts;  // NOLINT(google-build-using-namespace)
using test::CpuContext;
using test::normals;
using test::view;

struct Packed {
  Buffer bytes;
  ops::WeightView view;
  Packed(const Context& ctx, const Floats& w, const Shape& shape)
      : bytes(ops::weight_bytes(Device::cpu, DType::f32, shape), Device::cpu, "packed") {
    view.data = bytes.data();
    view.shape = shape;
    ops::refresh_weight(ctx, {.out = view, .master = test::view(w, shape)});
  }
};

Results run(const Context& ctx, const Layer& l) {
  const std::int64_t N = l.N, D = l.D, F = l.F, E = l.E, R = l.R;
  const Packed up(ctx, l.w13, {E, 2 * F, D}), down(ctx, l.w2, {E, D, F});
  const auto offsets = view(l.offsets, {E + 1}), token = view(l.row_token, {R});
  Results o;
  o.z.assign(at(R * 2 * F), kUntouched);
  o.dz = o.z;
  o.a.assign(at(R * F), kUntouched);
  o.weighted_a = o.a;
  o.y.assign(at(R * D), kUntouched);
  o.dx = o.y;
  o.drow_weight.assign(at(R), kUntouched);
  o.dw13.assign(at(E * 2 * F * D), kUntouched);
  o.dw2.assign(at(E * D * F), kUntouched);
  ops::expert_up_forward(ctx, {.z = view(o.z, {R, 2 * F}),
                               .a = view(o.a, {R, F}),
                               .x = view(l.x, {N, D}),
                               .row_token = token,
                               .expert_offsets = offsets,
                               .w = up.view});
  ops::expert_down_forward(
      ctx,
      {.y = view(o.y, {R, D}), .a = view(o.a, {R, F}), .expert_offsets = offsets, .w = down.view});
  ops::expert_down_backward(ctx, {.dz = view(o.dz, {R, 2 * F}),
                                  .weighted_a = view(o.weighted_a, {R, F}),
                                  .drow_weight = view(o.drow_weight, {R}),
                                  .dy = view(l.dy, {N, D}),
                                  .z = view(o.z, {R, 2 * F}),
                                  .row_token = token,
                                  .row_weight = view(l.row_weight, {R}),
                                  .expert_offsets = offsets,
                                  .w = down.view});
  ops::expert_up_backward(ctx, {.dx = view(o.dx, {R, D}),
                                .dz = view(o.dz, {R, 2 * F}),
                                .expert_offsets = offsets,
                                .w = up.view});
  ops::expert_weight_gradient(ctx, {.dw = view(o.dw13, {E, 2 * F, D}),
                                    .dy = view(o.dz, {R, 2 * F}),
                                    .dy_token = {},
                                    .x = view(l.x, {N, D}),
                                    .x_token = token,
                                    .expert_offsets = offsets,
                                    .accumulate = false});
  ops::expert_weight_gradient(ctx, {.dw = view(o.dw2, {E, D, F}),
                                    .dy = view(l.dy, {N, D}),
                                    .dy_token = token,
                                    .x = view(o.weighted_a, {R, F}),
                                    .x_token = {},
                                    .expert_offsets = offsets,
                                    .accumulate = false});
  return o;
}

class Experts : public ::testing::TestWithParam<Sizes> {
 protected:
  Layer layer{GetParam()};
};

TEST_P(Experts, MatchFormulas) {
  const CpuContext ctx(2);
  const Judge want(layer);

  const Results got = run(*ctx, layer);

  const std::int64_t D = layer.D, F = layer.F, most = layer.used() + 1;
  EXPECT_TRUE(used_rows_close(got.z, want.z, D)) << "z";
  EXPECT_TRUE(used_rows_close(got.a, want.a, D)) << "a";
  EXPECT_TRUE(used_rows_close(got.y, want.y, D * F)) << "y";
  EXPECT_TRUE(used_rows_close(got.dz, want.dz, D * D)) << "dz";
  EXPECT_TRUE(used_rows_close(got.weighted_a, want.weighted_a, D)) << "weighted_a";
  EXPECT_TRUE(used_rows_close(got.drow_weight, want.drow_weight, D * F)) << "drow_weight";
  EXPECT_TRUE(used_rows_close(got.dx, want.dx, D * F * D)) << "dx";
  EXPECT_TRUE(used_rows_close(got.dw13, want.dw13, most * D)) << "dw13";  // zeros of empty experts
  EXPECT_TRUE(used_rows_close(got.dw2, want.dw2, most * D)) << "dw2";
}

TEST_P(Experts, BitsDoNotDependOnThreads) {
  const CpuContext one(1), three(3);

  const Results a = run(*one, layer), b = run(*three, layer);

  EXPECT_EQ(a.z, b.z);
  EXPECT_EQ(a.a, b.a);
  EXPECT_EQ(a.y, b.y);
  EXPECT_EQ(a.dz, b.dz);
  EXPECT_EQ(a.weighted_a, b.weighted_a);
  EXPECT_EQ(a.drow_weight, b.drow_weight);
  EXPECT_EQ(a.dx, b.dx);
  EXPECT_EQ(a.dw13, b.dw13);
  EXPECT_EQ(a.dw2, b.dw2);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Experts,
                         ::testing::Values(Sizes{1, 1, 1, {1}}, Sizes{3, 257, 5, {2, 0, 4}},
                                           Sizes{20, 33, 37, {0, 0, 61, 0}},
                                           Sizes{40, 48, 64, {15, 29, 0, 1, 70}},
                                           Sizes{9, 20, 519, {3, 8}}, Sizes{30, 31, 32, {0, 0}},
                                           Sizes{50, 16, 1056, {17, 180}}));

// Loss = sum(G * output), output = gather-sum of weighted rows: only the forward operations and
// double sums, so that the backward pass is checked against nothing but the forward pass.
class Chain {
 public:
  explicit Chain(const Layer& l) : layer_(l) {}
  double loss(const Layer& l) const {
    const CpuContext ctx(1);
    const Results o = run(*ctx, l);
    double sum = 0;
    for (std::int64_t r = 0; r < l.used(); ++r) {
      for (std::int64_t d = 0; d < l.D; ++d) {
        sum += double{l.row_weight[at(r)]} * double{o.y[at(r * l.D + d)]} *
               double{l.dy[at(l.row_token[at(r)] * l.D + d)]};
      }
    }
    return sum;
  }
  double slope(Floats Layer::*operand, std::size_t i) const {
    constexpr float kStep = 0.01F;
    Layer l = layer_;
    const float old = (l.*operand)[i];
    (l.*operand)[i] = old + kStep;
    const double up = loss(l);
    const double high = (l.*operand)[i];
    (l.*operand)[i] = old - kStep;
    return (up - loss(l)) / (high - double{(l.*operand)[i]});
  }

 private:
  Layer layer_;
};

TEST(ExpertsGradient, MatchesFiniteDifferencesOfTheChain) {
  const Layer l(Sizes{6, 9, 7, {4, 0, 9, 3}});
  const CpuContext ctx;
  const Results o = run(*ctx, l);
  const Chain chain(l);
  Doubles dx(l.x.size());  // what gather_sum makes of the rows
  for (std::int64_t r = 0; r < l.used(); ++r) {
    for (std::int64_t d = 0; d < l.D; ++d)
      dx[at(l.row_token[at(r)] * l.D + d)] += double{o.dx[at(r * l.D + d)]};
  }
  const auto expect = [&](double got, double want) {
    EXPECT_NEAR(got, want, 3e-3 + 3e-3 * std::abs(want));
  };
  for (std::size_t i = 0; i < l.x.size(); i += 5) expect(dx[i], chain.slope(&Layer::x, i));
  for (std::size_t i = 0; i < l.w13.size(); i += 17)
    expect(double{o.dw13[i]}, chain.slope(&Layer::w13, i));
  for (std::size_t i = 0; i < l.w2.size(); i += 13)
    expect(double{o.dw2[i]}, chain.slope(&Layer::w2, i));
  for (std::size_t i = 0; i < at(l.used()); ++i)
    expect(double{o.drow_weight[i]}, chain.slope(&Layer::row_weight, i));
}

TEST(ExpertsRows, WithoutAnIndexRowsAreTheirOwnTokens) {
  const CpuContext ctx;
  Layer l(Sizes{30, 12, 10, {11, 0, 17}});
  l.R = l.N;  // rows 28 and 29 belong to no expert
  l.row_token.resize(at(l.R));
  l.row_weight = normals(l.R, "row_weight");
  std::iota(l.row_token.begin(), l.row_token.end(), 0);
  const Results indexed = run(*ctx, l);
  const Packed up(*ctx, l.w13, {l.E, 2 * l.F, l.D});
  Floats z(at(l.R * 2 * l.F), kUntouched), a(at(l.R * l.F), kUntouched);

  ops::expert_up_forward(*ctx, {.z = view(z, {l.R, 2 * l.F}),
                                .a = view(a, {l.R, l.F}),
                                .x = view(l.x, {l.N, l.D}),
                                .row_token = {},
                                .expert_offsets = view(l.offsets, {l.E + 1}),
                                .w = up.view});

  EXPECT_EQ(z, indexed.z);
  EXPECT_EQ(a, indexed.a);
}

TEST(ExpertsGradient, AccumulatingKeepsEmptyExpertsAndAddsToTheRest) {
  const CpuContext ctx;
  const std::int64_t E = 3, O = 5, I = 4, R = 6;
  const Ints offsets = {0, 2, 2, 6};
  const Floats dy = normals(R * O, "dy"), x = normals(R * I, "x");
  Floats first(at(E * O * I)), second(at(E * O * I), 2.0F);
  const auto gradient = [&](Floats& dw, bool accumulate) {
    ops::expert_weight_gradient(*ctx, {.dw = view(dw, {E, O, I}),
                                       .dy = view(dy, {R, O}),
                                       .dy_token = {},
                                       .x = view(x, {R, I}),
                                       .x_token = {},
                                       .expert_offsets = view(offsets, {E + 1}),
                                       .accumulate = accumulate});
  };

  gradient(first, false);
  gradient(second, true);

  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_NEAR(second[i], first[i] + 2.0F, 1e-5F);
  for (std::size_t i = at(O * I); i < at(2 * O * I); ++i) {
    EXPECT_EQ(first[i], 0.0F);
    EXPECT_EQ(second[i], 2.0F);
  }
}

TEST(ExpertsErrors, BrokenRoutingIsNamed) {
  const CpuContext ctx;
  const auto message = [&](const Layer& l) -> std::string {
    try {
      run(*ctx, l);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::internal);
      return e.what();
    }
    return "no error";
  };
  const Layer good(Sizes{4, 3, 2, {2, 1}});
  EXPECT_EQ(message(good), "no error");
  Layer bad = good;
  bad.offsets = {0, 3, 2};
  EXPECT_NE(message(bad).find("expert_offsets[2] is 2, want 3 to 5"), std::string::npos);
  bad = good;
  bad.offsets = {0, 2, 6};
  EXPECT_NE(message(bad).find("expert_offsets[2] is 6"), std::string::npos);
  bad = good;
  bad.row_token[1] = 4;
  EXPECT_NE(message(bad).find("row_token[1] is 4, want 0 to 3"), std::string::npos);
}

}  // namespace
}  // namespace grist
