#pragma once
// Float64 products and what fp32 chains may differ from them, for the tests of both backends.
#include <cstdint>
#include <vector>

#include "support/compare.h"

namespace grist::test {

inline std::size_t count(std::int64_t n) {
  return static_cast<std::size_t>(n);
}

// One chain of `length` products of normal numbers: partial sums grow with sqrt(length), and so
// does the walk of their rounding errors.
inline Tolerance chain_tolerance(std::int64_t length) {
  return {2e-6, 1e-6 + 1.5e-7 * static_cast<double>(length)};
}

// C = A B with element functions, in double.
template <class A, class B>
std::vector<double> product(std::int64_t M, std::int64_t N, std::int64_t K, A a, B b) {
  std::vector<double> c(count(M * N));
  for (std::int64_t m = 0; m < M; ++m) {
    for (std::int64_t n = 0; n < N; ++n) {
      double sum = 0;
      for (std::int64_t k = 0; k < K; ++k) sum += double{a(m, k)} * double{b(k, n)};
      c[count(m * N + n)] = sum;
    }
  }
  return c;
}

}  // namespace grist::test
