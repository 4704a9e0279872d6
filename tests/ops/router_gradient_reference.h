#pragma once
// The router's part of the loss in float64, and its gradient by central differences with the choice
// held constant.
#include <cmath>
#include <vector>

#include "ops/router_reference.h"

namespace grist::test {

struct Losses {
  std::int64_t S = 1;
  float aux_scale = 0.0F;
  float z_scale = 0.0F;
};

// Row r of the plan is slot r here; every fifth choice is dropped.
inline Ids slot_rows(const Problem& p) {
  Ids slots(Problem::at(p.N * p.K));
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = i % 5 == 4 ? -1 : static_cast<int>(i);
  return slots;
}

inline std::vector<float> fractions(const Problem& p, std::int64_t S) {
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

// The part of the loss that token n's logits decide.
inline double token_loss(const Problem& p, std::int64_t n, const Doubles& l,
                         const std::vector<float>& dw, const Losses& losses) {
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

inline const Losses kLosses[] = {
    {1, 0, 0}, {1, 0.7F, 0}, {4, 0.7F, 0}, {1, 0, 0.05F}, {2, 0.3F, 0.02F}};

inline Doubles central_differences(const Problem& p, const std::vector<float>& dw,
                                   const Losses& losses) {
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
  return want;
}

}  // namespace grist::test
