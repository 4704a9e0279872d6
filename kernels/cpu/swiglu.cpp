// SwiGLU, CPU: rows of vector_math.h's swiglu, so that the dense layer and the experts' fused
// kernels give the same bits.
//
//   a = silu(gate) * up,   dgate = da * up * silu'(gate),   dup = da * silu(gate)
//
// Shapes    a, da (N, F); z, dz (N, 2F): gate, then up; f32.
// Launch    16 rows a task.
// Numerics  fp32, element-wise; the exponential is one polynomial (vector_kernel.h).
// Traffic   forward 3 N F floats, backward 5 N F, each once.
// See       kernels/cuda/swiglu.cu, test tests/ops/swiglu_test.cpp.
#include <algorithm>

#include "grist/ops/swiglu.h"
#include "kernels/backends.h"
#include "kernels/cpu/vector_math.h"

namespace grist::cpu {
namespace {
constexpr std::int64_t kChunkRows = 16;

template <class Row> void for_rows(const Context& ctx, std::int64_t N, const Row& row) {
  parallel_for(ctx, (N + kChunkRows - 1) / kChunkRows, [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(N, (chunk + 1) * kChunkRows);
    for (std::int64_t n = chunk * kChunkRows; n < end; ++n) row(n);
  });
}
}  // namespace

void swiglu_forward(const Context& ctx, const ops::SwigluForward& a) {
  const std::int64_t F = a.a.shape[1];
  auto* out = a.a.as<float>();
  const auto* z = a.z.as<float>();
  for_rows(ctx, a.a.shape[0],
           [&](std::int64_t n) { swiglu(out + n * F, z + n * 2 * F, z + n * 2 * F + F, F); });
}

void swiglu_backward(const Context& ctx, const ops::SwigluBackward& a) {
  const std::int64_t F = a.da.shape[1];
  auto* dz = a.dz.as<float>();
  const auto* da = a.da.as<float>();
  const auto* z = a.z.as<float>();
  for_rows(ctx, a.da.shape[0], [&](std::int64_t n) {
    swiglu_gradient({.dgate = dz + n * 2 * F,
                     .dup = dz + n * 2 * F + F,
                     .weighted_a = nullptr,
                     .h = da + n * F,
                     .gate = z + n * 2 * F,
                     .up = z + n * 2 * F + F,
                     .weight = 1.0F,
                     .n = F});
  });
}

}  // namespace grist::cpu
