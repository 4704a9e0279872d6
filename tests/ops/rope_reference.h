#pragma once
// The judge of rope, in float64, from the formula of the angles.
#include <cmath>
#include <cstdint>
#include <vector>

namespace grist::test {

struct RopeShape {
  std::int64_t N, H, Dh;
};

inline std::vector<double> rope_reference(const std::vector<float>& x, const RopeShape& shape,
                                          const std::vector<std::int32_t>& positions,
                                          double theta) {
  std::vector<double> out(x.size());
  const std::int64_t half = shape.Dh / 2;
  for (std::int64_t n = 0; n < shape.N; ++n) {
    for (std::int64_t h = 0; h < shape.H; ++h) {
      for (std::int64_t i = 0; i < half; ++i) {
        const auto low = static_cast<std::size_t>((n * shape.H + h) * shape.Dh + i);
        const std::size_t high = low + static_cast<std::size_t>(half);
        const double angle =
            positions[static_cast<std::size_t>(n)] *
            std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(shape.Dh));
        const auto a = static_cast<double>(x[low]), b = static_cast<double>(x[high]);
        out[low] = a * std::cos(angle) - b * std::sin(angle);
        out[high] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
  return out;
}

// Positions of N tokens in [0, P), in no order.
inline std::vector<std::int32_t> some_positions(std::int64_t N, std::int64_t P) {
  std::vector<std::int32_t> positions;
  for (std::int64_t n = 0; n < N; ++n)
    positions.push_back(static_cast<std::int32_t>((n * 7 + 3) % P));
  return positions;
}

}  // namespace grist::test
