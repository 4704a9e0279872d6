// Rotary position embedding, half-split, CPU: one rotation of (x[i], x[i + Dh/2]) a pair, in place.
//
// Shapes    x (N, H, Dh); positions (N); table (P, Dh); f32.
// Launch    32 tokens (or positions of the table) a task.
// Numerics  fp32; the table in double, then rounded. Element-wise: no sums.
// Traffic   x read and written once; a token's row of the table once for all its heads.
// See       kernels/cuda/rope.cu, test tests/ops/rope_test.cpp.
#include <algorithm>
#include <cmath>

#include "grist/core/check.h"
#include "grist/ops/rope.h"
#include "kernels/backends.h"
#include "kernels/cpu/lanes.h"

namespace grist::cpu {
namespace {

constexpr std::int64_t kChunkRows = 32;

// Rotates `heads` vectors of 2 * half elements; sign -1 turns back.
GRIST_CLONES void rotate(float* x, const float* table, std::int64_t heads, std::int64_t half,
                         float sign) {
  for (std::int64_t i = 0; i < half; i += kLanes) {
    Lanes cosine, sine;
    load(cosine, table + i, half - i);
    load(sine, table + half + i, half - i);
    sine *= sign;
    for (std::int64_t h = 0; h < heads; ++h) {
      float* low = x + h * 2 * half + i;
      Lanes a, b;
      load(a, low, half - i);
      load(b, low + half, half - i);
      store(low, a * cosine - b * sine, half - i);
      store(low + half, b * cosine + a * sine, half - i);
    }
  }
}

}  // namespace

void rope_table(const Context& ctx, const ops::RopeTable& a) {
  const std::int64_t P = a.table.shape[0];
  const std::int64_t Dh = a.table.shape[1];
  const std::int64_t half = Dh / 2;
  auto* table = a.table.as<float>();
  parallel_for(ctx, (P + kChunkRows - 1) / kChunkRows, [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(P, (chunk + 1) * kChunkRows);
    for (std::int64_t p = chunk * kChunkRows; p < end; ++p) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(Dh);
        const double angle = static_cast<double>(p) * std::pow(a.theta, exponent);
        table[p * Dh + i] = static_cast<float>(std::cos(angle));
        table[p * Dh + half + i] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

void rope(const Context& ctx, const ops::Rope& a) {
  const std::int64_t N = a.x.shape[0];
  const std::int64_t H = a.x.shape[1];
  const std::int64_t Dh = a.x.shape[2];
  const std::int64_t P = a.table.shape[0];
  auto* x = a.x.as<float>();
  const auto* positions = a.positions.as<std::int32_t>();
  const auto* table = a.table.as<float>();
  for (std::int64_t n = 0; n < N; ++n)  // before anything is overwritten
    GRIST_CHECK(positions[n] >= 0 && positions[n] < P, "position {} of row {} is not in [0, {})",
                positions[n], n, P);
  parallel_for(ctx, (N + kChunkRows - 1) / kChunkRows, [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(N, (chunk + 1) * kChunkRows);
    for (std::int64_t n = chunk * kChunkRows; n < end; ++n)
      rotate(x + n * H * Dh, table + positions[n] * Dh, H, Dh / 2, a.inverse ? -1.0F : 1.0F);
  });
}

}  // namespace grist::cpu
