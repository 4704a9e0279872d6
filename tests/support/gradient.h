#pragma once
// Gradients by central differences of a float64 function: the judge of backward passes.
#include <cstddef>
#include <functional>
#include <vector>

namespace grist::test {

inline std::vector<double> widen(const std::vector<float>& x) {
  return {x.begin(), x.end()};
}

// d f / d x[i] for every i; x is restored.
inline std::vector<double> numeric_gradient(std::vector<double>& x,
                                            const std::function<double()>& f, double step = 1e-5) {
  std::vector<double> gradient(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double saved = x[i];
    x[i] = saved + step;
    const double above = f();
    x[i] = saved - step;
    const double below = f();
    x[i] = saved;
    gradient[i] = (above - below) / (2 * step);
  }
  return gradient;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace grist::test
