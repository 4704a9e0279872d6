#pragma once
// The judge of gather_sum, in float64.
#include <cstdint>
#include <vector>

#include "support/compare.h"

namespace grist::test {

struct GatherCase {
  std::int64_t N, K, D;
  std::vector<float> rows;          // (N*K, D)
  std::vector<std::int32_t> slots;  // (N, K); the first four and a third of the rest dropped
  std::vector<float> weights;       // (N, K)
  std::vector<float> y;             // (N, D), before
};

inline GatherCase gather_case(std::int64_t N, std::int64_t K, std::int64_t D) {
  GatherCase c{N,
               K,
               D,
               normals(N * K * D, "gather.rows"),
               std::vector<std::int32_t>(static_cast<std::size_t>(N * K)),
               normals(N * K, "gather.weights"),
               normals(N * D, "gather.y")};
  for (std::size_t i = 0; i < c.slots.size(); ++i)
    c.slots[i] = i % 3 == 1 || i < 4 ? -1 : static_cast<std::int32_t>((i * 37) % c.slots.size());
  return c;
}

inline std::vector<double> gather_reference(const GatherCase& c, bool weighted, bool accumulate) {
  std::vector<double> y(c.y.size());
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (std::int64_t n = 0; n < c.N; ++n) {
    for (std::int64_t d = 0; d < c.D; ++d) {
      double sum = accumulate ? static_cast<double>(c.y[at(n * c.D + d)]) : 0.0;
      for (std::int64_t k = 0; k < c.K; ++k) {
        const std::int32_t r = c.slots[at(n * c.K + k)];
        if (r >= 0)
          sum += (weighted ? static_cast<double>(c.weights[at(n * c.K + k)]) : 1.0) *
                 static_cast<double>(c.rows[at(r * c.D + d)]);
      }
      y[at(n * c.D + d)] = sum;
    }
  }
  return y;
}

}  // namespace grist::test
