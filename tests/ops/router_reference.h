#pragma once
// Float64 formulas of docs/routing.md, one token at a time, and a routing problem to run them on.
#include <algorithm>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "grist/ops/router.h"
#include "support/compare.h"

namespace grist::test {

using ops::RouterMode;
using ops::ScoreFunction;
using Doubles = std::vector<double>;
using Ids = std::vector<std::int32_t>;

inline std::vector<RouterMode> modes() {
  std::vector<RouterMode> all;
  for (const float scale : {1.0F, 2.5F}) {
    all.push_back({ScoreFunction::softmax, false, false, scale});
    all.push_back({ScoreFunction::softmax, true, false, scale});
    all.push_back({ScoreFunction::softmax, true, true, scale});
    all.push_back({ScoreFunction::sigmoid, false, false, scale});
    all.push_back({ScoreFunction::sigmoid, false, true, scale});
  }
  return all;
}

inline std::string name_of(const RouterMode& m) {
  return std::string(m.score == ScoreFunction::softmax ? "softmax" : "sigmoid") +
         (m.pre_softmax ? " before" : "") + (m.norm_topk ? " norm" : "") + " x " +
         std::to_string(m.routed_scale);
}

// ---- float64 reference: one token ------------------------------------------------------------

inline double logsumexp(const Doubles& l) {
  const double m = *std::max_element(l.begin(), l.end());
  double sum = 0;
  for (const double v : l) sum += std::exp(v - m);
  return m + std::log(sum);
}

// s of each expert: what the choice (with a bias) compares. Softmax-after compares logits.
inline Doubles scores(const Doubles& l, const RouterMode& mode) {
  Doubles s = l;
  const double lse = logsumexp(l);
  if (mode.score == ScoreFunction::sigmoid) {
    for (double& v : s) v = 1.0 / (1.0 + std::exp(-v));
  } else if (mode.pre_softmax) {
    for (double& v : s) v = std::exp(v - lse);
  }
  return s;
}

inline Doubles gate_weights(const Doubles& l, const std::int32_t* ids, std::size_t K,
                            const RouterMode& mode) {
  RouterMode before = mode;
  before.pre_softmax = true;  // the formula "softmax over the chosen" as p / sum of p
  const Doubles s = scores(l, before);
  Doubles w(K);
  double sum = 0;
  for (std::size_t k = 0; k < K; ++k) sum += w[k] = s[static_cast<std::size_t>(ids[k])];
  const bool after = mode.score == ScoreFunction::softmax && !mode.pre_softmax;
  for (double& v : w)
    v *= static_cast<double>(mode.routed_scale) / (mode.norm_topk || after ? sum : 1.0);
  return w;
}

// q: what the balancing loss averages.
inline Doubles balance_probabilities(const Doubles& l, const RouterMode& mode) {
  Doubles q = l;
  const double lse = logsumexp(l);
  double sum = 0;
  for (double& v : q)
    sum += v = mode.score == ScoreFunction::softmax ? std::exp(v - lse) : 1 / (1 + std::exp(-v));
  for (double& v : q) v /= sum;
  return q;
}

// ---- a whole case ----------------------------------------------------------------------------

struct Problem {
  std::int64_t N, E, K;
  RouterMode mode;
  std::vector<float> logits, weights;
  Ids ids;

  Problem(std::int64_t n, std::int64_t e, std::int64_t k, const RouterMode& m,
          const std::string& name = "router.logits")
      : N(n), E(e), K(k), mode(m), logits(normals(n * e, name, 2.0F)) {
    weights.assign(static_cast<std::size_t>(N * K), -7.0F);
    ids.assign(static_cast<std::size_t>(N * K), -7);
  }
  void route(const Context& ctx, const std::vector<float>& bias = {}) {
    ops::RouterForward a{.ids = view(ids, {N, K}),
                         .weights = view(weights, {N, K}),
                         .logits = view(std::as_const(logits), {N, E}),
                         .mode = mode};
    if (!bias.empty()) a.bias = view(bias, {E});
    ops::router_forward(ctx, a);
  }
  Doubles row(std::int64_t n) const { return {&logits[at(n * E)], &logits[at(n * E)] + E}; }
  const std::int32_t* chosen(std::int64_t n) const { return &ids[at(n * K)]; }
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
};

struct Statistics {
  std::vector<std::int64_t> counts;
  std::vector<float> fractions;
  Doubles prob_sums, scalars;
};

inline Statistics statistics(const Context& ctx, const Problem& p, std::int64_t S) {
  Statistics s{std::vector<std::int64_t>(Problem::at(S * p.E), -1),
               std::vector<float>(Problem::at(S * p.E), -1.0F), Doubles(Problem::at(S * p.E), -1),
               Doubles(3, -1)};
  ops::router_statistics(ctx, {.counts = view(s.counts, {S, p.E}),
                               .fractions = view(s.fractions, {S, p.E}),
                               .prob_sums = view(s.prob_sums, {S, p.E}),
                               .scalars = view(s.scalars, {3}),
                               .logits = view(p.logits, {p.N, p.E}),
                               .ids = view(p.ids, {p.N, p.K}),
                               .weights = view(p.weights, {p.N, p.K}),
                               .mode = p.mode});
  return s;
}

// Against sums over tokens in float64.
inline void expect_statistics(const Statistics& got, const Problem& p, std::int64_t S) {
  std::vector<std::int64_t> counts(Problem::at(S * p.E));
  Doubles sums(Problem::at(S * p.E));
  Doubles scalars(3);
  for (std::int64_t n = 0; n < p.N; ++n) {
    const std::int64_t base = n / (p.N / S) * p.E;
    const Doubles l = p.row(n);
    const Doubles q = balance_probabilities(l, p.mode);
    for (std::int64_t e = 0; e < p.E; ++e) sums[Problem::at(base + e)] += q[Problem::at(e)];
    for (const double v : q) scalars[1] -= v * std::log(v);
    scalars[0] += logsumexp(l) * logsumexp(l);
    const Doubles w = gate_weights(l, p.chosen(n), Problem::at(p.K), p.mode);
    scalars[2] += *std::max_element(w.begin(), w.end()) / std::reduce(w.begin(), w.end());
    for (std::int64_t k = 0; k < p.K; ++k) ++counts[Problem::at(base + p.chosen(n)[k])];
  }
  EXPECT_EQ(got.counts, counts);
  Doubles f;
  for (const std::int64_t c : counts)
    f.push_back(static_cast<double>(c) / static_cast<double>(p.K * p.N / S));
  EXPECT_TRUE(close(got.fractions, f, {1e-7, 0}));
  EXPECT_TRUE(close(got.prob_sums.data(), sums.data(), S * p.E, {1e-6, 1e-9}));
  EXPECT_TRUE(close(got.scalars.data(), scalars.data(), 3, {1e-6, 1e-9}));
}

}  // namespace grist::test
