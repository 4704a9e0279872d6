#pragma once
// The judge of rms_norm, in float64.
#include <cmath>
#include <vector>

#include "grist/core/tensor.h"

namespace grist::test {

struct RmsNormReference {
  std::vector<double> y, rstd;
};

// Of h, rows as wide as w.
inline RmsNormReference rms_norm_reference(const std::vector<double>& h,
                                           const std::vector<double>& w, double eps) {
  const std::size_t D = w.size(), N = h.size() / D;
  RmsNormReference out{std::vector<double>(h.size()), std::vector<double>(N)};
  for (std::size_t n = 0; n < N; ++n) {
    double squares = 0;
    for (std::size_t d = 0; d < D; ++d) squares += h[n * D + d] * h[n * D + d];
    out.rstd[n] = 1 / std::sqrt(squares / static_cast<double>(D) + eps);
    for (std::size_t d = 0; d < D; ++d) out.y[n * D + d] = h[n * D + d] * out.rstd[n] * w[d];
  }
  return out;
}

struct RmsNormGradients {
  std::vector<double> dh, dw;
};

// dw is added to what `dw` holds; dresidual may be empty.
inline RmsNormGradients rms_norm_gradients(const std::vector<double>& h,
                                           const std::vector<double>& w,
                                           const std::vector<double>& dy,
                                           const std::vector<double>& dresidual,
                                           std::vector<double> dw, double eps) {
  const std::size_t D = w.size(), N = h.size() / D;
  const std::vector<double> rstd = rms_norm_reference(h, w, eps).rstd;
  RmsNormGradients out{std::vector<double>(h.size()), std::move(dw)};
  for (std::size_t n = 0; n < N; ++n) {
    double mean = 0;
    for (std::size_t d = 0; d < D; ++d) {
      const std::size_t i = n * D + d;
      mean += dy[i] * w[d] * h[i] / static_cast<double>(D);
      out.dw[d] += dy[i] * h[i] * rstd[n];
    }
    for (std::size_t d = 0; d < D; ++d) {
      const std::size_t i = n * D + d;
      out.dh[i] = rstd[n] * (dy[i] * w[d] - h[i] * mean * rstd[n] * rstd[n]);
      if (!dresidual.empty()) out.dh[i] += dresidual[i];
    }
  }
  return out;
}

}  // namespace grist::test
