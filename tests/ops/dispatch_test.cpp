// The dispatch plan against a naive reference that walks choices in the documented order, and
// gather-sum against float64 loops.
#include "grist/ops/dispatch.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>

#include "grist/core/error.h"
#include "ops/gather_reference.h"
#include "support/compare.h"

namespace grist {
namespace {

using namespace test;
using Ids = std::vector<std::int32_t>;
using ops::DropPolicy;

std::size_t at(std::int64_t i) {
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

void expect_same(const Plan& got, const Plan& want) {
  EXPECT_EQ(got.offsets, want.offsets);
  EXPECT_EQ(got.row_token, want.row_token);  // rows past the last stay untouched
  EXPECT_EQ(got.row_weight, want.row_weight);
  EXPECT_EQ(got.slot_row, want.slot_row);
}

struct Size {
  std::int64_t N, E, K;
};
const Size kSizes[] = {{0, 4, 2},  {1, 1, 1},      {37, 8, 2}, {2500, 64, 8},
                       {50, 7, 7}, {1025, 512, 5}, {300, 3, 1}};

TEST(DispatchPlan, SortsChoicesByExpertInTokenOrder) {
  const CpuContext ctx;
  for (const Size& s : kSizes) {
    for (const double skew : {0.0, 3.0}) {
      SCOPED_TRACE(std::to_string(s.N) + " tokens, " + std::to_string(s.E) + " experts");
      const Choices c(s.N, s.E, s.K, skew);
      expect_same(c.plan(*ctx), c.reference());
    }
  }
}

TEST(DispatchPlan, DropsBeyondCapacityByPolicy) {
  const CpuContext ctx;
  int dropped = 0;
  for (const Size& s : kSizes) {
    for (const DropPolicy policy : {DropPolicy::probs, DropPolicy::position}) {
      for (const std::int64_t capacity : {1, 5, 40, 100000}) {
        SCOPED_TRACE(std::to_string(s.N) + " tokens, " + std::to_string(s.E) +
                     " experts, capacity " + std::to_string(capacity));
        Choices c(s.N, s.E, s.K, 0.7);
        c.capacity = capacity;
        c.policy = policy;
        const Plan got = c.plan(*ctx);
        expect_same(got, c.reference());
        dropped += static_cast<int>(std::count(got.slot_row.begin(), got.slot_row.end(), -1));
      }
    }
  }
  EXPECT_GT(dropped, 1000);
}

TEST(DispatchPlan, PoliciesKeepDifferentChoices) {
  const CpuContext ctx;
  Choices c(3, 2, 2, 0.0);
  c.capacity = 1;
  c.ids = {1, 0, 0, 1, 1, 0};
  c.weights = {0.1F, 0.9F, 0.6F, 0.4F, 0.5F, 0.5F};

  c.policy = DropPolicy::position;
  EXPECT_EQ(c.plan(*ctx).slot_row, (Ids{1, -1, 0, -1, -1, -1}));
  c.policy = DropPolicy::probs;
  EXPECT_EQ(c.plan(*ctx).slot_row, (Ids{-1, 0, -1, -1, 1, -1}));
}

TEST(DispatchPlan, EqualWeightsKeepTheLowerToken) {
  const CpuContext ctx;
  Choices c(6, 1, 1, 0.0);
  c.capacity = 3;
  c.weights = {0.5F, 0.25F, 0.5F, 0.75F, 0.5F, 0.5F};
  EXPECT_EQ(c.plan(*ctx).slot_row, (Ids{0, -1, 1, 2, -1, -1}));
}

TEST(DispatchPlan, OneExpertMayTakeEverything) {
  const CpuContext ctx;
  Choices c(700, 16, 1, 0.0);
  c.ids.assign(700, 5);
  const Plan got = c.plan(*ctx);
  expect_same(got, c.reference());
  EXPECT_EQ(got.offsets[5], 0);
  EXPECT_EQ(got.offsets[6], 700);
}

TEST(DispatchPlan, NanWeightsDropDeterministically) {
  Choices c(40, 2, 1, 0.0);
  c.ids.assign(40, 1);
  c.weights.assign(40, std::numeric_limits<float>::quiet_NaN());
  c.capacity = 8;
  const CpuContext ctx;
  const Plan got = c.plan(*ctx);
  EXPECT_EQ(got.offsets, (Ids{0, 0, 8}));
  for (std::int32_t r = 0; r < 8; ++r) EXPECT_EQ(got.row_token[at(r)], r);
}

TEST(DispatchPlan, DoesNotDependOnThreads) {
  Choices c(5000, 40, 4, 0.5);
  c.capacity = 450;
  const CpuContext one(1);
  const CpuContext many(5);
  EXPECT_EQ(c.plan(*one), c.plan(*many));
}

TEST(DispatchPlan, RefusesExpertsOutOfRange) {
  const CpuContext ctx;
  Choices c(4, 3, 2, 0.0);
  c.ids[5] = 3;
  EXPECT_THROW(c.plan(*ctx), Error);
  c.ids[5] = -1;
  EXPECT_THROW(c.plan(*ctx), Error);
  c.ids[5] = 0;
  c.capacity = -1;
  EXPECT_THROW(c.plan(*ctx), Error);
}

TEST(DispatchPlan, ReusesItsScratch) {
  ThreadPool pool(2);
  Scratch scratch;
  const Context ctx{.pool = &pool, .scratch = &scratch};
  Choices c(3000, 16, 4, 0.5);
  c.capacity = 600;
  c.plan(ctx);
  const int growths = scratch.growths();
  for (int i = 0; i < 3; ++i) c.plan(ctx);
  EXPECT_EQ(scratch.growths(), growths);
}

// ---- gather-sum ------------------------------------------------------------------------------

TEST(GatherSum, AddsTheRowsOfATokensChoices) {
  const CpuContext ctx;
  for (const std::int64_t D : {1, 16, 33, 100}) {
    for (const int variant : {0, 1, 2, 3}) {
      const bool weighted = (variant & 1) != 0;
      const bool accumulate = (variant & 2) != 0;
      const std::int64_t N = 35;
      const std::int64_t K = 4;
      GatherCase c = gather_case(N, K, D);
      const std::vector<double> want = gather_reference(c, weighted, accumulate);

      ops::gather_sum(
          *ctx, {.y = view(c.y, {N, D}),
                 .rows = view(std::as_const(c.rows), {N * K, D}),
                 .slot_row = view(std::as_const(c.slots), {N, K}),
                 .weights = weighted ? ConstTensorView(view(c.weights, {N, K})) : ConstTensorView(),
                 .accumulate = accumulate});

      EXPECT_TRUE(close(c.y, want, tolerance(K))) << "D " << D << " variant " << variant;
    }
  }
}

TEST(GatherSum, WithoutTokensDoesNothing) {
  const CpuContext ctx;
  std::vector<float> y;
  const std::vector<float> rows;
  const Ids slots;
  ops::gather_sum(
      *ctx, {.y = view(y, {0, 8}), .rows = view(rows, {0, 8}), .slot_row = view(slots, {0, 2})});
  const Ids wrong(6);
  EXPECT_THROW(ops::gather_sum(*ctx, {.y = view(y, {0, 8}),
                                      .rows = view(rows, {0, 8}),
                                      .slot_row = view(wrong, {3, 2})}),
               Error);
}

}  // namespace
}  // namespace grist
