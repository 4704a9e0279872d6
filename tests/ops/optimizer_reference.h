#pragma once
// The judge of AdamW, in float64, and of the balanced tree.
#include <cmath>
#include <vector>

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

}  // namespace grist::test
