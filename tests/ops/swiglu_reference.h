#pragma once
// The judge of swiglu, in float64.
#include <cmath>
#include <cstddef>
#include <vector>

namespace grist::test {

inline std::vector<double> swiglu_reference(const std::vector<double>& z, std::size_t N,
                                            std::size_t F) {
  std::vector<double> a(N * F);
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t f = 0; f < F; ++f) {
      const double gate = z[n * 2 * F + f];
      a[n * F + f] = gate / (1 + std::exp(-gate)) * z[n * 2 * F + F + f];
    }
  }
  return a;
}

inline std::vector<double> swiglu_gradient(const std::vector<double>& z,
                                           const std::vector<double>& da, std::size_t N,
                                           std::size_t F) {
  std::vector<double> dz(z.size());
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t f = 0; f < F; ++f) {
      const double gate = z[n * 2 * F + f], up = z[n * 2 * F + F + f], d = da[n * F + f];
      const double s = 1 / (1 + std::exp(-gate));
      dz[n * 2 * F + f] = d * up * s * (1 + gate * (1 - s));
      dz[n * 2 * F + F + f] = d * gate * s;
    }
  }
  return dz;
}

}  // namespace grist::test
