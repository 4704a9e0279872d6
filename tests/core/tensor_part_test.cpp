// Parts of a tensor: what two of them share, and whether many are the tensor, against a loop over
// all elements.
#include "grist/core/tensor_part.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "grist/core/random.h"

namespace grist {
namespace {

const Shape kShape = {7, 10};

std::vector<std::int64_t> places(const TensorPart& p, const Shape& shape) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < p.size(); ++i)
    out.push_back(place_in_tensor(p, columns_of(shape), i));
  return out;
}

// Some part of kShape, flat or in a window; may be empty.
TensorPart drawn(const Random& random, std::uint64_t& at) {
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random.below(at++, static_cast<std::uint64_t>(n)));
  };
  TensorPart p;
  std::int64_t elements = 70;
  if (below(3) > 0) {
    p.columns = 1 + below(9);
    p.first_column = below(10 - p.columns + 1);
    elements = 7 * p.columns;
  }
  p.begin = below(elements + 1);
  p.end = p.begin + below(elements - p.begin + 1);
  return p;
}

TEST(TensorPart, ABlockHasItsRowsAndColumns) {
  const TensorPart p = block_part(kShape, 2, 4, 3, 6);

  EXPECT_EQ(p, (TensorPart{6, 12, 3, 3}));
  EXPECT_EQ(places(p, kShape), (std::vector<std::int64_t>{23, 24, 25, 33, 34, 35}));
  EXPECT_EQ(block_part(kShape, 2, 4, 0, 10), (TensorPart{20, 40, 0, 0}));
}

TEST(TensorPart, CommonRunsAreTheElementsThatBothHave) {
  const Random random(1, "parts");
  std::uint64_t at = 0;
  int shared = 0;
  for (int round = 0; round < 2000; ++round) {
    const TensorPart a = drawn(random, at), b = drawn(random, at);
    ASSERT_TRUE(fits(a, kShape) && fits(b, kShape));
    std::map<std::int64_t, std::int64_t> of_b;
    for (std::int64_t i = 0; i < b.size(); ++i) of_b[place_in_tensor(b, 10, i)] = i;
    std::map<std::int64_t, std::int64_t> want, got;
    for (std::int64_t i = 0; i < a.size(); ++i) {
      const auto found = of_b.find(place_in_tensor(a, 10, i));
      if (found != of_b.end()) want[i] = found->second;
    }

    for_each_common_run(a, b, 10, [&](const CommonRun& r) {
      for (std::int64_t i = 0; i < r.count; ++i) got[r.at_a + i] = r.at_b + i;
    });

    ASSERT_EQ(got, want) << round;
    ASSERT_EQ(overlap(a, b, kShape), !want.empty()) << round;
    shared += want.empty() ? 0 : 1;
  }
  EXPECT_GT(shared, 500);
}

TEST(TensorPart, TilingFindsHolesAndOverlaps) {
  const Random random(2, "tilings");
  std::uint64_t at = 0;
  int whole = 0, broken = 0;
  for (int round = 0; round < 2000; ++round) {
    // Two windows side by side, each cut in two; every second time something is added or missing.
    const auto middle = 1 + static_cast<std::int64_t>(random.below(at++, 9));
    std::vector<TensorPart> parts;
    for (const auto& [first, width] :
         {std::pair<std::int64_t, std::int64_t>(0, middle), std::pair(middle, 10 - middle)}) {
      const auto cut =
          static_cast<std::int64_t>(random.below(at++, static_cast<std::uint64_t>(7 * width + 1)));
      parts.push_back({0, cut, first, width});
      parts.push_back({cut, 7 * width, first, width});
    }
    if (random.below(at, 4) == 0) parts.push_back(drawn(random, at));
    if (random.below(at++, 4) == 1) parts.erase(parts.begin() + 1);
    std::vector<int> holders(70, 0);
    for (const TensorPart& p : parts)
      for (const std::int64_t place : places(p, kShape)) ++holders[static_cast<std::size_t>(place)];
    const bool hole = std::find(holders.begin(), holders.end(), 0) != holders.end();
    const bool twice = std::any_of(holders.begin(), holders.end(), [](int n) { return n > 1; });

    const Tiling t = tiling(parts, kShape);

    ASSERT_EQ(t.hole.has_value(), hole) << round;
    ASSERT_EQ(t.twice.has_value(), twice) << round;
    if (hole) {
      ASSERT_EQ(holders[static_cast<std::size_t>(*t.hole)], 0) << round;
    }
    if (twice) {
      ASSERT_GT(holders[static_cast<std::size_t>(*t.twice)], 1) << round;
    }
    (hole || twice ? broken : whole) += 1;
  }
  EXPECT_GT(whole, 300);
  EXPECT_GT(broken, 300);
}

TEST(TensorPart, FlatPartsAreJudgedAsTheyAlwaysWere) {
  const std::vector<TensorPart> good = {{40, 70}, {0, 40}, {40, 40}};
  const std::vector<TensorPart> hole = {{0, 40}, {41, 70}}, twice = {{0, 40}, {39, 70}};

  EXPECT_FALSE(tiling(good, kShape).hole || tiling(good, kShape).twice);
  EXPECT_EQ(tiling(hole, kShape).hole, 40);
  EXPECT_EQ(tiling(twice, kShape).twice, 39);
  EXPECT_EQ(tiling({}, kShape).hole, 0);
  EXPECT_FALSE(tiling({}, {0, 8}).hole);
}

TEST(TensorPart, WhatDoesNotFitIsSeen) {
  for (const TensorPart& p :
       {TensorPart{0, 71, 0, 0}, TensorPart{-1, 3, 0, 0}, TensorPart{5, 4, 0, 0},
        TensorPart{0, 5, 1, 0}, TensorPart{0, 5, 0, 10}, TensorPart{0, 5, 8, 3},
        TensorPart{0, 22, 0, 3}, TensorPart{0, 5, -1, 3}, TensorPart{0, 5, 0, -1}})
    EXPECT_FALSE(fits(p, kShape)) << p.begin << " " << p.end << " " << p.first_column;
  EXPECT_TRUE(fits({0, 21, 7, 3}, kShape));
  EXPECT_TRUE(fits({0, 1}, {}));
}

}  // namespace
}  // namespace grist
