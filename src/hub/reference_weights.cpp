// Reading weights for the reference forward pass, and multiplying by them.
#include "reference_weights.h"

#include <algorithm>

#include "grist/core/check.h"

namespace grist::hub {

using Size = std::int64_t;

void ReferenceWeights::need(const std::string& name, const Shape& shape) const {
  const SafetensorsEntry* e = files_.find(name);
  if (e == nullptr)
    fail(ExitCode::bad_data, "{}: has no tensor \"{}\"", files_.folder().string(), name);
  if (!(e->shape == shape))
    fail(ExitCode::bad_data, "{}: tensor \"{}\" is {}; want {}", files_.folder().string(), name,
         e->shape.str(), shape.str());
}

void ReferenceWeights::read(const std::string& name, Size first, std::span<float> out) const {
  files_.read(name, first, out);
  for (const float v : out)
    if (!std::isfinite(v))
      fail(ExitCode::bad_data, "{}: tensor \"{}\" holds {}", files_.folder().string(), name, v);
}

std::vector<float> ReferenceWeights::vector(const std::string& name, Size n) const {
  need(name, {n});
  std::vector<float> out(static_cast<std::size_t>(n));
  read(name, 0, out);
  return out;
}

Columns ReferenceWeights::product(const Columns& x, const std::string& name, Size out,
                                  Size first) const {
  constexpr Size kElements = 1 << 20;
  Columns y(out, x.tokens);
  const Size at_once = std::max<Size>(kElements / x.rows, 1);
  std::vector<float> w;
  for (Size begin = 0; begin < out; begin += at_once) {
    const Size rows = std::min(at_once, out - begin);
    w.resize(static_cast<std::size_t>(rows * x.rows));
    read(name, first + begin * x.rows, w);
    for (Size r = 0; r < rows; ++r) {
      double* sum = y.row(begin + r);
      for (Size d = 0; d < x.rows; ++d) {
        const double weight = w[static_cast<std::size_t>(r * x.rows + d)];
        const double* column = x.row(d);
        for (Size t = 0; t < x.tokens; ++t) sum[t] += weight * column[t];
      }
    }
  }
  return y;
}

Columns ReferenceWeights::linear(const Columns& x, const std::string& name, Size out) const {
  need(name, {out, x.rows});
  return product(x, name, out, 0);
}

}  // namespace grist::hub
