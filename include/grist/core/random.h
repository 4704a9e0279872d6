#pragma once
// Counter-based random numbers (Philox4x32-10, Salmon et al., SC'11). A value is a function of
// (seed, stream name, index): no state, so any rank or thread can draw any element, and layouts
// agree.
#include <array>
#include <cstdint>
#include <string_view>

namespace grist {

// The generator itself: 128 random bits for a counter under a key.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

class Random {
 public:
  Random(std::uint64_t seed, std::string_view stream);
  std::array<std::uint32_t, 4> block(std::uint64_t index) const;  // 128 random bits
  std::uint64_t bits(std::uint64_t index) const;                  // 64 of them
  double uniform(std::uint64_t index) const;                      // [0, 1), 53 bits
  float normal(std::uint64_t index) const;  // mean 0, variance 1 (Box-Muller, in double)
  std::uint64_t below(std::uint64_t index,
                      std::uint64_t bound) const;  // [0, bound), bias < 2^-64 * bound

 private:
  std::array<std::uint32_t, 2> key_{};
  std::array<std::uint32_t, 2> stream_{};
};

// A pseudo-random permutation of [0, size): element i, without storing anything (Feistel network
// with cycle walking).
class Permutation {
 public:
  Permutation(std::uint64_t size, std::uint64_t seed, std::string_view stream);
  std::uint64_t operator()(std::uint64_t i) const;

 private:
  Random random_;
  std::uint64_t size_;
  int half_bits_;
};

}  // namespace grist
