#include "python_random.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "grist/core/check.h"

namespace grist::eval {

// init_by_array with the seed as its one word.
PythonRandom::PythonRandom(std::uint32_t seed) {
  state_[0] = 19650218U;
  for (std::size_t i = 1; i < kWords; ++i)
    state_[i] =
        1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<std::uint32_t>(i);
  std::size_t i = 1;
  const auto advance = [&] {
    if (++i == kWords) {
      state_[0] = state_[kWords - 1];
      i = 1;
    }
  };
  for (std::size_t k = 0; k < kWords; ++k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525U)) + seed;
    advance();
  }
  for (std::size_t k = 1; k < kWords; ++k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941U)) -
                static_cast<std::uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000U;
}

void PythonRandom::refill() {
  constexpr std::size_t kShift = 397;
  for (std::size_t i = 0; i < kWords; ++i) {
    const std::uint32_t y = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7FFFFFFFU);
    state_[i] = state_[(i + kShift) % kWords] ^ (y >> 1) ^ ((y & 1U) != 0 ? 0x9908B0DFU : 0U);
  }
  at_ = 0;
}

std::uint32_t PythonRandom::bits(int bits) {
  if (at_ == kWords) refill();
  std::uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9D2C5680U;
  y ^= (y << 15) & 0xEFC60000U;
  y ^= y >> 18;
  return y >> (32 - bits);
}

std::size_t PythonRandom::below(std::size_t n) {
  GRIST_CHECK(n > 0 && n <= 0xFFFFFFFFU, "a number below {}", n);
  const auto width = static_cast<int>(std::bit_width(n));
  std::size_t r = bits(width);
  while (r >= n) r = bits(width);
  return r;
}

std::vector<std::size_t> PythonRandom::sample(std::size_t n, std::size_t k) {
  GRIST_CHECK(k <= n, "a sample of {} from {}", k, n);
  // Where a set of the chosen would be larger than a list of all, CPython takes the list; the
  // numbers drawn differ.
  std::size_t set_size = 21;
  if (k > 5) {  // + 4 ** ceil(log(3 k, 4))
    std::size_t power = 1;
    while (power < 3 * k) power *= 4;
    set_size += power;
  }
  std::vector<std::size_t> result(k);
  if (n <= set_size) {
    std::vector<std::size_t> pool(n);
    std::iota(pool.begin(), pool.end(), std::size_t{0});
    for (std::size_t i = 0; i < k; ++i) {
      const std::size_t j = below(n - i);
      result[i] = pool[j];
      pool[j] = pool[n - i - 1];
    }
    return result;
  }
  for (std::size_t i = 0; i < k; ++i) {
    const auto chosen = result.begin() + static_cast<std::ptrdiff_t>(i);
    do {
      result[i] = below(n);
    } while (std::find(result.begin(), chosen, result[i]) != chosen);
  }
  return result;
}

}  // namespace grist::eval
