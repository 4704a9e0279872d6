#pragma once
// Sums of a fixed shape: which values meet in which addition is a function of their number alone,
// so neither threads nor ranks nor instruction sets change a bit. The rules stand here once.
#include <cstdint>

namespace grist {

// The left subtree takes the largest power of two below n, so adjacent pairs are added first.
// No values: 0.
inline double balanced_sum(const double* x, std::int64_t n) {
  if (n == 0) return 0.0;
  if (n == 1) return x[0];
  std::int64_t left = 1;
  while (left * 2 < n) left *= 2;
  return balanced_sum(x, left) + balanced_sum(x + left, n - left);
}

// Sum of kLanes running sums (a power of two of them): the upper half is added to the lower, again
// and again. The lanes' content is used up.
template <int kLanes, class T> T tree_over_lanes(T (&lanes)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

}  // namespace grist
