// Packing rows and regrouping received ones, against a sort of labelled rows.
#include <numeric>

#include "grist/core/error.h"
#include "grist/ops/dispatch.h"
#include "ops/regroup_reference.h"
#include "support/compare.h"

namespace grist {
namespace {

using namespace test;

TEST(GatherRows, CopiesTheRowsOfAnIndex) {
  const CpuContext ctx(3);
  for (const std::int64_t D : {1, 7, 16, 33}) {
    for (const std::int64_t R : {0, 1, 29, 20000}) {
      const std::int64_t N = 211;
      const std::vector<float> x = normals(N * D, "gather rows");
      Ids index(static_cast<std::size_t>(R));
      for (std::size_t i = 0; i < index.size(); ++i)
        index[i] = static_cast<std::int32_t>(i * 37 % 211);
      std::vector<float> y(static_cast<std::size_t>(R * D), -9.0F), want;
      for (const std::int32_t i : index)
        want.insert(want.end(), x.begin() + i * D, x.begin() + (i + 1) * D);

      ops::gather_rows(*ctx,
                       {.y = view(y, {R, D}), .x = view(x, {N, D}), .index = view(index, {R})});

      EXPECT_TRUE(y == want) << R << " rows of " << D;
    }
  }
}

TEST(GatherRows, RefusesRowsThatAreNotThere) {
  const CpuContext ctx;
  std::vector<float> x(6), y(4);
  for (const std::int32_t wrong : {-1, 3}) {
    const Ids index = {0, wrong};
    EXPECT_THROW(ops::gather_rows(
                     *ctx, {.y = view(y, {2, 2}), .x = view(x, {3, 2}), .index = view(index, {2})}),
                 Error);
  }
  const Ids index = {0};
  EXPECT_THROW(ops::gather_rows(
                   *ctx, {.y = view(y, {2, 2}), .x = view(x, {3, 2}), .index = view(index, {1})}),
               Error);
}

Regrouped regroup(const Context& ctx, std::int64_t S, std::int64_t E, std::int64_t room,
                  const Ids& counts) {
  const auto n = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  Regrouped r{Ids(n(E + 1), -9), Ids(n(E * S + 1), -9), Ids(n(room), -9), Ids(n(room), -9)};
  ops::regroup_plan(ctx, {.expert_offsets = view(r.expert_offsets, {E + 1}),
                          .source_offsets = view(r.source_offsets, {E * S + 1}),
                          .row_received = view(r.row_received, {room}),
                          .received_row = view(r.received_row, {room}),
                          .counts = view(counts, {S, E})});
  return r;
}

TEST(RegroupPlan, SortsReceivedRowsByExpertThenSource) {
  const CpuContext ctx(3);
  for (const RegroupCase& c : kRegroupCases) {
    SCOPED_TRACE(std::to_string(c.S) + " sources, " + std::to_string(c.E) + " experts");
    const Ids counts = c.counts();
    const std::int64_t rows = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    for (const std::int64_t spare : {0, 3}) {
      EXPECT_TRUE(regroup(*ctx, c.S, c.E, rows + spare, counts) ==
                  regrouped_reference(c.S, c.E, rows + spare, counts));
    }
  }
}

TEST(RegroupPlan, RefusesMoreRowsThanThereIsRoomFor) {
  const CpuContext ctx;
  EXPECT_NO_THROW(regroup(*ctx, 2, 2, 10, {1, 2, 3, 4}));
  EXPECT_THROW(regroup(*ctx, 2, 2, 9, {1, 2, 3, 4}), Error);
  EXPECT_THROW(regroup(*ctx, 2, 2, 9, {1, -2, 3, 4}), Error);
}

}  // namespace
}  // namespace grist
