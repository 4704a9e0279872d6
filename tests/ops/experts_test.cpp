// Grouped matmuls of a MoE layer against double loops, with finite differences through the whole
// chain, uneven and empty experts.
#include "grist/ops/experts.h"

#include <gtest/gtest.h>

#include <numeric>

#include "grist/core/error.h"
#include "support/compare.h"

namespace grist {
namespace {

using test::CpuContext;
using test::normals;
using test::view;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int32_t>;

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

struct Sizes {
  std::int64_t N, D, F;
  Ints rows;  // of each expert
};

// Operands of one layer, fp32, with the rows of each expert drawn from any tokens.
struct Layer {
  std::int64_t N, D, F, E, R;
  Ints offsets, row_token;
  Floats x, w13, w2, dy, row_weight;

  explicit Layer(const Sizes& s)
      : N(s.N), D(s.D), F(s.F), E(static_cast<std::int64_t>(s.rows.size())) {
    offsets.push_back(0);
    for (const std::int32_t n : s.rows) offsets.push_back(offsets.back() + n);
    R = offsets.back() + 2;  // an upper bound: the last rows stay untouched
    const Random random(3, "tokens");
    for (std::int64_t r = 0; r < R; ++r) {
      row_token.push_back(static_cast<std::int32_t>(
          random.below(static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(N))));
    }
    x = normals(N * D, "x");
    w13 = normals(E * 2 * F * D, "w13", 0.3F);
    w2 = normals(E * D * F, "w2", 0.3F);
    dy = normals(N * D, "dy");
    row_weight = normals(R, "row_weight");
  }
  std::int64_t used() const { return offsets.back(); }
  std::int64_t expert_of(std::int64_t r) const {
    std::int64_t e = 0;
    while (offsets[at(e) + 1] <= r) ++e;
    return e;
  }
};

struct Results {
  Floats z, a, y, dz, weighted_a, drow_weight, dx, dw13, dw2;
};

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

constexpr float kUntouched = 12345.0F;

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

// The same in double, from the header's formulas.
struct Judge {
  Doubles z, a, y, dz, weighted_a, drow_weight, dx, dw13, dw2;

  explicit Judge(const Layer& l) {
    const std::int64_t D = l.D, F = l.F, n = l.used();
    z.resize(at(n * 2 * F)), dz = z, a.resize(at(n * F)), weighted_a = a;
    y.resize(at(n * D)), dx = y, drow_weight.resize(at(n));
    dw13.resize(l.w13.size()), dw2.resize(l.w2.size());
    for (std::int64_t r = 0; r < n; ++r) row(l, r);
  }

  void row(const Layer& l, std::int64_t r) {
    const std::int64_t D = l.D, F = l.F, e = l.expert_of(r), t = l.row_token[at(r)];
    const float* x = &l.x[at(t * D)];
    const float* dy = &l.dy[at(t * D)];
    const float* w13 = &l.w13[at(e * 2 * F * D)];
    const float* w2 = &l.w2[at(e * D * F)];
    const double s = l.row_weight[at(r)];
    double* zr = &z[at(r * 2 * F)];
    double* dzr = &dz[at(r * 2 * F)];
    for (std::int64_t j = 0; j < 2 * F; ++j) {
      for (std::int64_t d = 0; d < D; ++d) zr[j] += double{x[d]} * double{w13[j * D + d]};
    }
    for (std::int64_t f = 0; f < F; ++f) {
      const double g = zr[f], u = zr[F + f], sigmoid = 1 / (1 + std::exp(-g));
      double h = 0;
      for (std::int64_t d = 0; d < D; ++d) h += double{dy[d]} * double{w2[d * F + f]};
      const double act = g * sigmoid * u;
      a[at(r * F + f)] = act;
      weighted_a[at(r * F + f)] = s * act;
      drow_weight[at(r)] += h * act;
      dzr[f] = s * h * u * sigmoid * (1 + g * (1 - sigmoid));
      dzr[F + f] = s * h * g * sigmoid;
      for (std::int64_t d = 0; d < D; ++d) {
        y[at(r * D + d)] += act * double{w2[d * F + f]};
        dw2[at(e * D * F + d * F + f)] += s * act * double{dy[d]};
      }
    }
    for (std::int64_t j = 0; j < 2 * F; ++j) {
      for (std::int64_t d = 0; d < D; ++d) {
        dx[at(r * D + d)] += dzr[j] * double{w13[j * D + d]};
        dw13[at(e * 2 * F * D + j * D + d)] += dzr[j] * double{x[d]};
      }
    }
  }
};

// Rows in use against the judge; rows beyond them must not have been written.
::testing::AssertionResult used_rows_close(const Floats& got, const Doubles& want,
                                           std::int64_t length) {
  auto t = test::tolerance(length);
  t.absolute *= 4;  // two products behind each other
  const auto close =
      test::close(got.data(), want.data(), static_cast<std::int64_t>(want.size()), t);
  if (!close) return close;
  for (std::size_t i = want.size(); i < got.size(); ++i) {
    if (got[i] != kUntouched) return ::testing::AssertionFailure() << "wrote past the last row";
  }
  return close;
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
