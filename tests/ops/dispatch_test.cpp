// The dispatch plan against a naive reference that walks choices in the documented order, and
// gather-sum against float64 loops.
#include "grist/ops/dispatch.h"

#include <algorithm>
#include <limits>

#include "grist/core/error.h"
#include "grist/core/memory.h"
#include "ops/dispatch_reference.h"
#include "ops/gather_reference.h"
#include "support/compare.h"

namespace grist {
namespace {

using namespace test;

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
  const Context ctx(&pool, &scratch);
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
