#pragma once
// CPython's random.Random, as far as lm-evaluation-harness draws few-shot examples with it: seeded
// by a whole number, random.sample. Source: CPython 3.11, Lib/random.py and
// Modules/_randommodule.c; the generator is MT19937 (Matsumoto and Nishimura 1998).
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace grist::eval {

class PythonRandom {
 public:
  explicit PythonRandom(std::uint32_t seed);  // random.Random(seed)
  // Places of random.sample(range(n), k), in the order drawn. k <= n.
  std::vector<std::size_t> sample(std::size_t n, std::size_t k);
  // random.getrandbits(bits), 1 <= bits <= 32.
  std::uint32_t bits(int bits);

 private:
  static constexpr std::size_t kWords = 624;
  std::size_t below(std::size_t n);  // random._randbelow; n >= 1
  void refill();
  std::array<std::uint32_t, kWords> state_{};
  std::size_t at_ = kWords;
};

}  // namespace grist::eval
