#pragma once
// Choices of experts, and the dispatch plan by a naive walk over them in the documented order.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "grist/ops/dispatch.h"
#include "support/compare.h"

namespace grist::test {

using Ids = std::vector<std::int32_t>;
using ops::DropPolicy;

inline std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

struct Plan {
  Ids offsets, row_token, slot_row;
  std::vector<float> row_weight;
  bool operator==(const Plan&) const = default;
};

struct Choices {
  std::int64_t N, E, K;
  Ids ids;
  std::vector<float> weights;
  std::int64_t capacity = 0;
  DropPolicy policy = DropPolicy::probs;

  // Distinct experts a token; skewed, so that some experts are empty and some overflow.
  Choices(std::int64_t n, std::int64_t e, std::int64_t k, double skew) : N(n), E(e), K(k) {
    const Random random(3, "dispatch.choices");
    for (std::int64_t t = 0; t < N; ++t) {
      std::vector<std::pair<double, std::int32_t>> order;
      for (std::int64_t i = 0; i < E; ++i)
        order.emplace_back(
            random.uniform(at(t * E + i)) + skew * static_cast<double>(i) / static_cast<double>(E),
            static_cast<std::int32_t>(i));
      std::sort(order.begin(), order.end());
      for (std::int64_t i = 0; i < K; ++i) {
        ids.push_back(order[at(i)].second);
        // A coarse grid: equal weights are frequent, so ties are tested.
        weights.push_back(static_cast<float>(random.below(at(1000000 + t * K + i), 8)) / 8.0F);
      }
    }
  }

  // On a CPU context.
  Plan plan(const Context& ctx) const {
    Plan p{Ids(at(E + 1), -9), Ids(at(N * K), -9), Ids(at(N * K), -9),
           std::vector<float>(at(N * K), -9)};
    ops::dispatch_plan(ctx, {.expert_offsets = view(p.offsets, {E + 1}),
                             .row_token = view(p.row_token, {N * K}),
                             .row_weight = view(p.row_weight, {N * K}),
                             .slot_row = view(p.slot_row, {N, K}),
                             .ids = view(ids, {N, K}),
                             .weights = view(weights, {N, K}),
                             .num_experts = E,
                             .capacity = capacity,
                             .policy = policy});
    return p;
  }

  // keep[n * K + k]
  std::vector<bool> kept() const {
    std::vector<std::int64_t> order;  // of all choices, first come first
    for (std::int64_t k = 0; k < K; ++k)
      for (std::int64_t n = 0; n < N; ++n) order.push_back(n * K + k);
    if (policy == DropPolicy::probs) {
      std::sort(order.begin(), order.end());  // token order
      std::stable_sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
        return weights[at(i)] > weights[at(j)];
      });
    }
    std::vector<bool> keep(ids.size(), false);
    std::vector<std::int64_t> taken(at(E), 0);
    for (const std::int64_t i : order) {
      std::int64_t& count = taken[at(ids[at(i)])];
      if (capacity == 0 || count < capacity) {
        ++count;
        keep[at(i)] = true;
      }
    }
    return keep;
  }

  Plan reference() const {
    Plan p{{0}, Ids(at(N * K), -9), Ids(at(N * K), -1), std::vector<float>(at(N * K), -9)};
    const std::vector<bool> keep = kept();
    std::int32_t row = 0;
    for (std::int32_t e = 0; e < E; ++e) {
      for (std::int64_t i = 0; i < N * K; ++i) {
        if (ids[at(i)] != e || !keep[at(i)]) continue;
        p.row_token[at(row)] = static_cast<std::int32_t>(i / K);
        p.row_weight[at(row)] = weights[at(i)];
        p.slot_row[at(i)] = row++;
      }
      p.offsets.push_back(row);
    }
    return p;
  }
};

inline void expect_same(const Plan& got, const Plan& want) {
  EXPECT_EQ(got.offsets, want.offsets);
  EXPECT_EQ(got.row_token, want.row_token);  // rows past the last stay untouched
  EXPECT_EQ(got.row_weight, want.row_weight);
  EXPECT_EQ(got.slot_row, want.slot_row);
}

struct Size {
  std::int64_t N, E, K;
};
inline const Size kSizes[] = {{0, 4, 2},  {1, 1, 1},      {37, 8, 2}, {2500, 64, 8},
                              {50, 7, 7}, {1025, 512, 5}, {300, 3, 1}};

}  // namespace grist::test
