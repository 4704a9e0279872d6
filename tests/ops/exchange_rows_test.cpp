// Packing rows and regrouping received ones, against a sort of labelled rows.
#include <algorithm>
#include <numeric>
#include <tuple>

#include "grist/core/error.h"
#include "grist/ops/dispatch.h"
#include "support/compare.h"

namespace grist {
namespace {

using namespace test;
using Ids = std::vector<std::int32_t>;

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

struct Regrouped {
  Ids expert_offsets, source_offsets, row_received, received_row;
  bool operator==(const Regrouped&) const = default;
};

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

// Rows as (expert, source, place among the received), sorted.
Regrouped reference(std::int64_t S, std::int64_t E, std::int64_t room, const Ids& counts) {
  std::vector<std::tuple<std::int64_t, std::int64_t, std::int32_t>> labelled;
  for (std::int64_t s = 0; s < S; ++s)
    for (std::int64_t e = 0; e < E; ++e)
      for (std::int32_t i = 0; i < counts[static_cast<std::size_t>(s * E + e)]; ++i)
        labelled.emplace_back(e, s, static_cast<std::int32_t>(labelled.size()));
  std::sort(labelled.begin(), labelled.end());
  Regrouped r{{}, {}, Ids(static_cast<std::size_t>(room), -9), {}};
  r.received_row = r.row_received;
  for (std::size_t i = 0; i < labelled.size(); ++i) {
    r.row_received[i] = std::get<2>(labelled[i]);
    r.received_row[static_cast<std::size_t>(r.row_received[i])] = static_cast<std::int32_t>(i);
  }
  const auto before = [&](std::int64_t e, std::int64_t s) {
    return static_cast<std::int32_t>(std::count_if(
        labelled.begin(), labelled.end(),
        [&](const auto& l) { return std::tie(std::get<0>(l), std::get<1>(l)) < std::tie(e, s); }));
  };
  for (std::int64_t e = 0; e <= E; ++e) {
    r.expert_offsets.push_back(before(e, 0));
    for (std::int64_t s = 0; s < S && (e < E || s == 0); ++s)
      r.source_offsets.push_back(before(e, s));
  }
  return r;
}

TEST(RegroupPlan, SortsReceivedRowsByExpertThenSource) {
  const CpuContext ctx(3);
  struct Case {
    std::int64_t S, E, most;
  };
  for (const Case& c : {Case{1, 1, 9}, {1, 5, 4}, {4, 1, 4}, {2, 3, 1}, {8, 6, 40}, {3, 7, 0}}) {
    SCOPED_TRACE(std::to_string(c.S) + " sources, " + std::to_string(c.E) + " experts");
    const Random random(5, "regroup");
    Ids counts(static_cast<std::size_t>(c.S * c.E));
    for (std::size_t i = 0; i < counts.size(); ++i)
      counts[i] = i % 3 == 1 ? 0 : static_cast<std::int32_t>(random.below(i, c.most + 1));
    const std::int64_t rows = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
    for (const std::int64_t spare : {0, 3}) {
      EXPECT_TRUE(regroup(*ctx, c.S, c.E, rows + spare, counts) ==
                  reference(c.S, c.E, rows + spare, counts));
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
