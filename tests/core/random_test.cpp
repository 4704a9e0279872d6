#include "grist/core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "grist/core/hash.h"

namespace grist {
namespace {

using Block = std::array<std::uint32_t, 4>;

// kat_vectors of Random123 (Salmon et al., SC'11), philox4x32 with 10 rounds.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// What every checkpoint's initial weights and sample orders rest on: seed is the key, index and
// the hash of the name are the counter.
TEST(Random, IsPhiloxOfIndexNameAndSeed) {
  const std::uint64_t name = hash64(std::string_view("model.embed"));
  const std::uint64_t seed = 0x0123456789abcdefULL;
  const std::uint64_t index = 0x1122334455667788ULL;
  const Block want = philox4x32({0x55667788, 0x11223344, static_cast<std::uint32_t>(name),
                                 static_cast<std::uint32_t>(name >> 32)},
                                {0x89abcdef, 0x01234567});
  const Random random(seed, "model.embed");
  EXPECT_EQ(random.block(index), want);
  EXPECT_EQ(random.bits(index), (std::uint64_t{want[1]} << 32) | want[0]);
  EXPECT_EQ(random.uniform(index),
            static_cast<double>(random.bits(index) >> 11) / 9007199254740992.0);
}

TEST(Random, StreamsDifferByNameSeedAndIndex) {
  EXPECT_NE(Random(1, "a").bits(0), Random(1, "b").bits(0));
  EXPECT_NE(Random(1, "a").bits(0), Random(2, "a").bits(0));
  EXPECT_NE(Random(1, "a").bits(0), Random(1, "a").bits(1));
  EXPECT_NE(Random(1, "a").bits(0), Random(1, "a").bits(1ULL << 32));
}

TEST(Random, UniformAndBelowFillTheirRange) {
  const Random random(5, "range");
  std::vector<int> hits(7);
  double sum = 0;
  constexpr int kDraws = 70000;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const double u = random.uniform(i);
    ASSERT_TRUE(0.0 <= u && u < 1.0);
    sum += u;
    const std::uint64_t b = random.below(i, 7);
    ASSERT_LT(b, 7U);
    ++hits[b];
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  for (const int h : hits) EXPECT_NEAR(h, kDraws / 7, 400);
  EXPECT_EQ(random.below(3, 1), 0U);
  EXPECT_EQ(random.below(3, 0), 0U);
}

TEST(Random, NormalHasTheRightMoments) {
  const Random random(5, "normal");
  double mean = 0;
  double square = 0;
  int beyond_two = 0;
  constexpr int kDraws = 100000;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const auto z = static_cast<double>(random.normal(i));
    ASSERT_TRUE(std::isfinite(z));
    mean += z / kDraws;
    square += z * z / kDraws;
    beyond_two += std::abs(z) > 2.0 ? 1 : 0;
  }
  EXPECT_NEAR(mean, 0.0, 0.015);
  EXPECT_NEAR(square, 1.0, 0.02);
  EXPECT_NEAR(beyond_two, 4550, 300);
}

TEST(Permutation, IsABijectionForEverySize) {
  for (std::uint64_t size = 1; size <= 1000; ++size) {
    const Permutation permutation(size, 9, "order");
    std::vector<bool> seen(size);
    for (std::uint64_t i = 0; i < size; ++i) {
      const std::uint64_t p = permutation(i);
      ASSERT_LT(p, size);
      ASSERT_FALSE(seen[p]) << "size " << size << " gives " << p << " twice";
      seen[p] = true;
    }
  }
}

TEST(Permutation, ShufflesAndDependsOnSeedAndName) {
  const std::uint64_t size = 1000;
  const Permutation a(size, 1, "epoch 0");
  const Permutation b(size, 2, "epoch 0");
  const Permutation c(size, 1, "epoch 1");
  int fixed = 0;
  int same_b = 0;
  int same_c = 0;
  for (std::uint64_t i = 0; i < size; ++i) {
    fixed += a(i) == i ? 1 : 0;
    same_b += a(i) == b(i) ? 1 : 0;
    same_c += a(i) == c(i) ? 1 : 0;
  }
  EXPECT_LT(fixed, 10);  // one is expected
  EXPECT_LT(same_b, 10);
  EXPECT_LT(same_c, 10);
}

TEST(Permutation, HoldsForSizesBeyond32Bits) {
  const std::uint64_t size = (1ULL << 40) + 12345;
  const Permutation permutation(size, 1, "large");
  for (std::uint64_t i = size - 50; i < size; ++i) EXPECT_LT(permutation(i), size);
  EXPECT_NE(permutation(0), permutation(1));
}

}  // namespace
}  // namespace grist
