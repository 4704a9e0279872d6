#pragma once
// The judge of linear_cross_entropy in float64, and how large the sums behind each output are,
// which is what rounded operands are judged by.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace grist::test {

struct CrossEntropyCase {
  std::int64_t N, D, V;
};

// Every fifth target is masked.
inline std::vector<std::int32_t> some_targets(const CrossEntropyCase& c) {
  std::vector<std::int32_t> targets(static_cast<std::size_t>(c.N));
  for (std::int64_t n = 0; n < c.N; ++n)
    targets[static_cast<std::size_t>(n)] =
        n % 5 == 4 ? -100 : static_cast<std::int32_t>(n * 7919 % c.V);
  return targets;
}

// Losses, and the gradients of the sum of loss + z_coeff * z times grad_scale.
struct CrossEntropyJudge {
  std::vector<double> losses, z, dx, dw;
  std::vector<double> dx_size, dw_size;  // the same sums of absolute values

  CrossEntropyJudge(const CrossEntropyCase& c, const std::vector<double>& x,
                    const std::vector<double>& w, const std::vector<std::int32_t>& targets,
                    double grad_scale, double z_coeff = 0)
      : losses(targets.size()),
        z(targets.size()),
        dx(x.size()),
        dw(w.size()),
        dx_size(x.size()),
        dw_size(w.size()) {
    const auto D = static_cast<std::size_t>(c.D), V = static_cast<std::size_t>(c.V);
    std::vector<double> p(V);
    for (std::size_t n = 0; n < targets.size(); ++n) {
      if (targets[n] < 0) continue;
      for (std::size_t v = 0; v < V; ++v) {
        p[v] = 0;
        for (std::size_t d = 0; d < D; ++d) p[v] += x[n * D + d] * w[v * D + d];
      }
      const double largest = *std::max_element(p.begin(), p.end());
      const auto target = static_cast<std::size_t>(targets[n]);
      const double chosen = p[target];
      double sum = 0;
      for (double& value : p) sum += value = std::exp(value - largest);
      const double lse = std::log(sum) + largest;
      losses[n] = lse - chosen;
      z[n] = lse * lse;
      for (std::size_t v = 0; v < V; ++v) {
        const double d_logit =
            grad_scale * ((1 + 2 * z_coeff * lse) * p[v] / sum - (v == target ? 1 : 0));
        for (std::size_t d = 0; d < D; ++d) {
          dx[n * D + d] += d_logit * w[v * D + d];
          dw[v * D + d] += d_logit * x[n * D + d];
          dx_size[n * D + d] += std::abs(d_logit * w[v * D + d]);
          dw_size[v * D + d] += std::abs(d_logit * x[n * D + d]);
        }
      }
    }
  }
};

}  // namespace grist::test
