#pragma once
// The regroup plan by a sort of labelled rows, and counts to try it on.
#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "grist/core/random.h"
#include "grist/ops/dispatch.h"

namespace grist::test {

using Ids = std::vector<std::int32_t>;

struct Regrouped {
  Ids expert_offsets, source_offsets, row_received, received_row;
  bool operator==(const Regrouped&) const = default;
};

// Rows as (expert, source, place among the received), sorted.
inline Regrouped regrouped_reference(std::int64_t S, std::int64_t E, std::int64_t room,
                                     const Ids& counts) {
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

// Sources, experts, and at most so many rows of one for the other.
struct RegroupCase {
  std::int64_t S, E, most;

  Ids counts() const {
    const Random random(5, "regroup");
    Ids all(static_cast<std::size_t>(S * E));
    for (std::size_t i = 0; i < all.size(); ++i)
      all[i] =
          i % 3 == 1
              ? 0
              : static_cast<std::int32_t>(random.below(i, static_cast<std::uint64_t>(most + 1)));
    return all;
  }
};
inline const RegroupCase kRegroupCases[] = {{1, 1, 9}, {1, 5, 4},  {4, 1, 4},
                                            {2, 3, 1}, {8, 6, 40}, {3, 7, 0}};

}  // namespace grist::test
