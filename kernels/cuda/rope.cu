// Rotary position embedding, half-split, CUDA: one rotation of (x[i], x[i + Dh/2]) a pair, in
// place.
//
// Shapes    x (N, H, Dh) f32 or bf16; positions (N); table (P, Dh) f32.
// Launch    a thread turns one vector of pairs of up to four heads of a token, with one reading of
//           the table.
// Numerics  fp32. The table is made by the CPU's code on the host. A position outside the table
//           gives NaN: the device cannot refuse it.
// Traffic   x read and written once; the table's row once for four heads.
// See       kernels/cpu/rope.cpp, test tests/cuda/rope_test.cpp.
#include <cmath>
#include <vector>

#include "elementwise.cuh"
#include "grist/core/device.h"
#include "grist/ops/rope.h"
#include "kernels/backends.h"

namespace grist::cuda {
namespace {

constexpr int kHeads = 4;  // of a thread

template <class T> struct Rotation {
  T* x;                           // (N, H, 2 * half)
  const std::int32_t* positions;  // (N)
  const float* table;             // (P, 2 * half)
  unsigned items;                 // N * head_groups * vectors
  int H, head_groups, half;
  std::int64_t P;
  float sign;  // -1 turns back
};

template <class T, int W>
__global__ void __launch_bounds__(kBlockThreads) rotate_kernel(const Rotation<T> a) {
  const unsigned item = blockIdx.x * kBlockThreads + threadIdx.x;
  if (item >= a.items) return;
  const unsigned vectors = static_cast<unsigned>(a.half / W), rest = item / vectors;
  const int i = static_cast<int>(item % vectors) * W;
  const int head = static_cast<int>(rest % static_cast<unsigned>(a.head_groups));
  const std::int64_t n = rest / static_cast<unsigned>(a.head_groups);
  const std::int32_t position = a.positions[n];
  T* token = a.x + n * a.H * 2 * a.half + i;
  Vec<T, W> low[kHeads], high[kHeads];
#pragma unroll
  for (int j = 0; j < kHeads; ++j) {
    const int h = head + j * a.head_groups;
    if (h >= a.H) continue;
    low[j] = load<W>(token + h * 2 * a.half);
    high[j] = load<W>(token + h * 2 * a.half + a.half);
  }
  float cosine[W], sine[W];
  const bool known = 0 <= position && position < a.P;
  const float* table = a.table + (known ? position : 0) * std::int64_t{2} * a.half + i;
  load_floats(cosine, table);
  load_floats(sine, table + a.half);
  for (int k = 0; k < W; ++k) {
    if (!known) cosine[k] = NAN;
    sine[k] *= a.sign;
  }
#pragma unroll
  for (int j = 0; j < kHeads; ++j) {
    const int h = head + j * a.head_groups;
    if (h >= a.H) continue;
    float turned_low[W], turned_high[W];
    for (int k = 0; k < W; ++k) {
      const float p = low[j][k], q = high[j][k];
      turned_low[k] = p * cosine[k] - q * sine[k];
      turned_high[k] = q * cosine[k] + p * sine[k];
    }
    store_floats(token + h * 2 * a.half, turned_low);
    store_floats(token + h * 2 * a.half + a.half, turned_high);
  }
}

}  // namespace

// On the host, so that the device turns by the CPU's numbers to the bit.
void rope_table(const Context& ctx, const ops::RopeTable& a) {
  std::vector<float> table(static_cast<std::size_t>(a.table.numel()));
  if (table.empty()) return;
  cpu::rope_table({}, {.table = {table.data(), DType::f32, a.table.shape}, .theta = a.theta});
  copy_in(ctx, a.table, table.data());
}

void rope(const Context& ctx, const ops::Rope& a) {
  const std::int64_t N = a.x.shape[0], H = a.x.shape[1], half = a.x.shape[2] / 2;
  const std::int64_t head_groups = (H + kHeads - 1) / kHeads;
  for_dtype(a.x.dtype, [&](auto type) {
    using T = decltype(type);
    for_width<T>(half, {a.x.data, a.table.data}, [&](auto width) {
      constexpr int W = decltype(width)::value;
      const Rotation<T> r{.x = elements<T>(a.x),
                          .positions = a.positions.as<std::int32_t>(),
                          .table = a.table.as<float>(),
                          .items = count_items(N, head_groups * (half / W)),
                          .H = static_cast<int>(H),
                          .head_groups = static_cast<int>(head_groups),
                          .half = static_cast<int>(half),
                          .P = a.table.shape[0],
                          .sign = a.inverse ? -1.0F : 1.0F};
      launch(rotate_kernel<T, W>, blocks_for(r.items, kBlockThreads), kBlockThreads, 0,
             stream_of(ctx), r);
    });
  });
}

}  // namespace grist::cuda
