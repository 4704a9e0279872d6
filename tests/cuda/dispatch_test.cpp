// The dispatch plan on the device: the reference's integers, whatever the threads' order.
#include "ops/dispatch_reference.h"

#include "cuda/fixture.h"
#include "grist/core/memory.h"

namespace grist {
namespace {

using namespace test;

Plan device_plan(const Context& ctx, const Choices& c) {
  const std::int64_t R = c.N * c.K;
  const OnDevice offsets(ctx, Ids(at(c.E + 1), -9), {c.E + 1});
  const OnDevice row_token(ctx, Ids(at(R), -9), {R}), slot_row(ctx, Ids(at(R), -9), {c.N, c.K});
  const OnDevice row_weight(ctx, std::vector<float>(at(R), -9), {R});
  const OnDevice ids(ctx, c.ids, {c.N, c.K}), weights(ctx, c.weights, {c.N, c.K});
  ops::dispatch_plan(ctx, {.expert_offsets = offsets,
                           .row_token = row_token,
                           .row_weight = row_weight,
                           .slot_row = slot_row,
                           .ids = ids,
                           .weights = weights,
                           .num_experts = c.E,
                           .capacity = c.capacity,
                           .policy = c.policy});
  return {offsets.host<std::int32_t>(), row_token.host<std::int32_t>(),
          slot_row.host<std::int32_t>(), row_weight.floats()};
}

// A tile of choices is 1024: one less, one more, several, and experts beyond one block's sums.
const Size kDeviceSizes[] = {{0, 4, 2},    {1, 1, 1},    {341, 5, 3},    {1025, 3, 1},
                             {512, 40, 2}, {700, 64, 8}, {200, 1500, 4}, {50, 7, 7}};

TEST(CudaDispatchPlan, SortsChoicesByExpertInTokenOrder) {
  const CudaContext ctx;
  for (const Size& s : kDeviceSizes) {
    for (const double skew : {0.0, 3.0}) {
      SCOPED_TRACE(std::to_string(s.N) + " tokens, " + std::to_string(s.E) + " experts");
      const Choices c(s.N, s.E, s.K, skew);
      const Plan want = c.reference();
      for_each_schedule([&] { expect_same(device_plan(*ctx, c), want); });
    }
  }
}

TEST(CudaDispatchPlan, DropsBeyondCapacityByPolicy) {
  const CudaContext ctx;
  std::int64_t dropped = 0;
  for (const Size& s : {Size{0, 4, 2}, {300, 3, 1}, {700, 5, 3}, {90, 12, 8}}) {
    for (const DropPolicy policy : {DropPolicy::probs, DropPolicy::position}) {
      for (const std::int64_t capacity : {40, 100000}) {
        SCOPED_TRACE(std::to_string(s.N) + " tokens, " + std::to_string(s.E) +
                     " experts, capacity " + std::to_string(capacity));
        Choices c(s.N, s.E, s.K, 0.7);
        c.capacity = capacity;
        c.policy = policy;
        const Plan want = c.reference();
        dropped += std::count(want.slot_row.begin(), want.slot_row.end(), -1);
        for_each_schedule([&] { expect_same(device_plan(*ctx, c), want); });
      }
    }
  }
  EXPECT_GT(dropped, 1000);
}

// More rows of one expert than a block has threads, with weights that share leading bytes.
TEST(CudaDispatchPlan, SelectsAmongManyRowsOfOneExpert) {
  const CudaContext ctx;
  Choices c(1800, 16, 1, 0.0);
  c.ids.assign(1800, 5);
  for (std::size_t i = 0; i < c.weights.size(); ++i)
    c.weights[i] = 0.5F + 1e-6F * static_cast<float>(i * 733 % 600) - (i % 7 == 0 ? 1.0F : 0.0F);
  for (const std::int64_t capacity : {1, 513, 1799}) {
    SCOPED_TRACE(capacity);
    c.capacity = capacity;
    const Plan want = c.reference();
    for_each_schedule([&] { expect_same(device_plan(*ctx, c), want); });
  }
}

TEST(CudaDispatchPlan, NanWeightsDropDeterministically) {
  const CudaContext ctx;
  const CpuContext cpu;
  Choices c(40, 2, 1, 0.0);
  c.weights.assign(40, 0.25F);
  for (const std::size_t i : {3U, 17U, 39U}) c.weights[i] = std::numeric_limits<float>::quiet_NaN();
  c.capacity = 8;
  const Plan want = c.plan(*cpu);
  const Plan got = device_plan(*ctx, c);
  EXPECT_EQ(got.offsets, want.offsets);
  EXPECT_EQ(got.row_token, want.row_token);
  EXPECT_EQ(got.slot_row, want.slot_row);
}

TEST(CudaDispatchPlan, ReusesItsScratch) {
  Scratch scratch(Device::cuda);
  const CudaContext owner;
  Context ctx = *owner;
  ctx.scratch = &scratch;
  Choices c(300, 16, 4, 0.5);
  c.capacity = 60;
  device_plan(ctx, c);
  const int growths = scratch.growths();
  for (int i = 0; i < 3; ++i) device_plan(ctx, c);
  EXPECT_EQ(scratch.growths(), growths);
}

}  // namespace
}  // namespace grist
