// Regrouping received rows on the device, against a sort of labelled rows.
#include "cuda/fixture.h"
#include "ops/regroup_reference.h"

namespace grist {
namespace {

using namespace test;

Regrouped regroup(const Context& ctx, const RegroupCase& c, const Ids& counts, std::int64_t room) {
  const auto filled = [](std::int64_t n) { return Ids(static_cast<std::size_t>(n), -9); };
  const OnDevice expert_offsets(ctx, filled(c.E + 1), {c.E + 1});
  const OnDevice source_offsets(ctx, filled(c.E * c.S + 1), {c.E * c.S + 1});
  const OnDevice row_received(ctx, filled(room), {room});
  const OnDevice received_row(ctx, filled(room), {room});
  const OnDevice device_counts(ctx, counts, {c.S, c.E});
  ops::regroup_plan(ctx, {.expert_offsets = expert_offsets,
                          .source_offsets = source_offsets,
                          .row_received = row_received,
                          .received_row = received_row,
                          .counts = device_counts});
  return {expert_offsets.host<std::int32_t>(), source_offsets.host<std::int32_t>(),
          row_received.host<std::int32_t>(), received_row.host<std::int32_t>()};
}

void expect_regrouped(const RegroupCase& c) {
  SCOPED_TRACE(std::to_string(c.S) + " sources, " + std::to_string(c.E) + " experts");
  const CudaContext ctx;
  const Ids counts = c.counts();
  const std::int64_t rows = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  for (const std::int64_t spare : {0, 3}) {
    const Regrouped want = regrouped_reference(c.S, c.E, rows + spare, counts);
    for_each_schedule([&] { EXPECT_TRUE(regroup(*ctx, c, counts, rows + spare) == want); });
  }
}

TEST(CudaRegroupPlan, SortsReceivedRowsByExpertThenSource) {
  for (const RegroupCase& c : kRegroupCases) expect_regrouped(c);
}

TEST(CudaRegroupPlan, TakesMorePairsThanABlockHasThreads) {
  expect_regrouped({5, 230, 2});
}

TEST(CudaRegroupPlan, TakesMoreRowsOfAPairThanABlockHasThreads) {
  expect_regrouped({2, 2, 400});
}

// More rows than there is room for is the caller's mistake, which the CPU refuses: here nothing is
// written past the end.
TEST(CudaRegroupPlan, WritesNoRowBeyondTheRoom) {
  const CudaContext ctx;
  const RegroupCase c{3, 4, 30};
  const Ids counts = c.counts();
  const Regrouped want = regrouped_reference(3, 4, 200, counts);
  const Regrouped got = regroup(*ctx, c, counts, 20);
  EXPECT_EQ(got.expert_offsets, want.expert_offsets);
  EXPECT_TRUE(
      std::equal(got.row_received.begin(), got.row_received.end(), want.row_received.begin()));
}

}  // namespace
}  // namespace grist
