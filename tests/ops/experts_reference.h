#pragma once
// Float64 formulas of ops/experts.h and a MoE layer to run them on, for the tests of both backends.
#include <cmath>
#include <cstdint>
#include <vector>

#include "support/compare.h"

namespace grist::test::experts {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int32_t>;

inline std::size_t at(std::int64_t i) {
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

constexpr float kUntouched = 12352.0F;  // a number of bf16 too

// The same in double, from the header's formulas. With `stored`, every operation is judged by what
// it was given: the values between operations are those that the backend stored (rounded to bf16).
struct Judge {
  Doubles z, a, y, dz, weighted_a, drow_weight, dx, dw13, dw2;

  explicit Judge(const Layer& l, const Results* stored = nullptr) : stored_(stored) {
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
    const auto given = [this](const Floats Results::*v, std::int64_t i, double own) {
      return stored_ == nullptr ? own : double{(stored_->*v)[at(i)]};
    };
    for (std::int64_t f = 0; f < F; ++f) {
      const double g = given(&Results::z, r * 2 * F + f, zr[f]);
      const double u = given(&Results::z, r * 2 * F + F + f, zr[F + f]);
      const double sigmoid = 1 / (1 + std::exp(-g));
      double h = 0;
      for (std::int64_t d = 0; d < D; ++d) h += double{dy[d]} * double{w2[d * F + f]};
      const double act = g * sigmoid * u;
      a[at(r * F + f)] = act;
      weighted_a[at(r * F + f)] = s * act;
      drow_weight[at(r)] += h * act;
      dzr[f] = s * h * u * sigmoid * (1 + g * (1 - sigmoid));
      dzr[F + f] = s * h * g * sigmoid;
      const double y_factor = given(&Results::a, r * F + f, act);
      const double dw2_factor = given(&Results::weighted_a, r * F + f, s * act);
      for (std::int64_t d = 0; d < D; ++d) {
        y[at(r * D + d)] += y_factor * double{w2[d * F + f]};
        dw2[at(e * D * F + d * F + f)] += dw2_factor * double{dy[d]};
      }
    }
    for (std::int64_t j = 0; j < 2 * F; ++j) {
      const double dzj = given(&Results::dz, r * 2 * F + j, dzr[j]);
      for (std::int64_t d = 0; d < D; ++d) {
        dx[at(r * D + d)] += dzj * double{w13[j * D + d]};
        dw13[at(e * 2 * F * D + j * D + d)] += dzj * double{x[d]};
      }
    }
  }

 private:
  const Results* stored_;
};

// Rows in use against the judge; rows beyond them must not have been written.
inline ::testing::AssertionResult used_rows_close(const Floats& got, const Doubles& want,
                                                  std::int64_t length, double relative = 0) {
  auto t = test::tolerance(length);
  t.absolute *= 4;  // two products behind each other
  t.relative += relative;
  const auto close =
      test::close(got.data(), want.data(), static_cast<std::int64_t>(want.size()), t);
  if (!close) return close;
  for (std::size_t i = want.size(); i < got.size(); ++i) {
    if (got[i] != kUntouched) return ::testing::AssertionFailure() << "wrote past the last row";
  }
  return close;
}

}  // namespace grist::test::experts
