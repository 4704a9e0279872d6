#pragma once
// The judge of AdamW, in float64, and the table of a vector's norm chunks.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "grist/ops/optimizer.h"

namespace grist::test {

struct AdamReference {
  std::vector<double> p, m, v;
  double lr = 3e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;

  void update(const std::vector<float>& grad, double clip, int step) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double g = clip * static_cast<double>(grad[i]);
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      const double direction = m[i] / (1 - std::pow(beta1, step)) /
                               (std::sqrt(v[i] / (1 - std::pow(beta2, step))) + eps);
      p[i] -= lr * (direction + weight_decay * p[i]);
    }
  }
};

// The n elements at x (of either device) cut as gradients are: address and size of each chunk.
inline std::vector<std::int64_t> norm_chunks(const float* x, std::int64_t n) {
  std::vector<std::int64_t> chunks;
  for (std::int64_t first = 0; first < n; first += ops::kNormChunk) {
    chunks.push_back(reinterpret_cast<std::int64_t>(x + first));
    chunks.push_back(std::min(ops::kNormChunk, n - first));
  }
  return chunks;
}

}  // namespace grist::test
