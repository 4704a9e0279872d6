#include "grist/core/random.h"

#include <cmath>
#include <numbers>

#include "grist/core/hash.h"

namespace grist {

Random::Random(std::uint64_t seed, std::string_view stream) {
  const std::uint64_t name = hash64(stream);
  key_ = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  stream_ = {static_cast<std::uint32_t>(name), static_cast<std::uint32_t>(name >> 32)};
}

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> c,
                                        std::array<std::uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * c[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k[0], static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k[1], static_cast<std::uint32_t>(a)};
    k[0] += 0x9E3779B9U;
    k[1] += 0xBB67AE85U;
  }
  return c;
}

std::array<std::uint32_t, 4> Random::block(std::uint64_t index) const {
  return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                     stream_[0], stream_[1]},
                    key_);
}

std::uint64_t Random::bits(std::uint64_t index) const {
  const auto b = block(index);
  return (std::uint64_t{b[1]} << 32) | b[0];
}

double Random::uniform(std::uint64_t index) const {
  return static_cast<double>(bits(index) >> 11) * 0x1.0p-53;
}

float Random::normal(std::uint64_t index) const {
  const auto b = block(index);
  const double u =
      (static_cast<double>(((std::uint64_t{b[1]} << 32) | b[0]) >> 11) + 0.5) * 0x1.0p-53;
  const double v = static_cast<double>(((std::uint64_t{b[3]} << 32) | b[2]) >> 11) * 0x1.0p-53;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

std::uint64_t Random::below(std::uint64_t index, std::uint64_t bound) const {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits(index)) * bound) >> 64);
}

Permutation::Permutation(std::uint64_t size, std::uint64_t seed, std::string_view stream)
    : random_(seed, stream), size_(size), half_bits_(1) {
  while (half_bits_ < 32 && (std::uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

std::uint64_t Permutation::operator()(std::uint64_t i) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  do {
    std::uint64_t left = i >> half_bits_;
    std::uint64_t right = i & mask;
    for (std::uint64_t round = 0; round < 6; ++round) {
      const std::uint64_t next = left ^ (random_.bits((round << 32) | right) & mask);
      left = right;
      right = next;
    }
    i = (left << half_bits_) | right;
  } while (i >= size_);
  return i;
}

}  // namespace grist
