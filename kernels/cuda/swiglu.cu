// SwiGLU, CUDA:   a = silu(gate) * up,   dgate = da * up * silu'(gate),   dup = da * silu(gate)
//
// Shapes    a, da (N, F); z, dz (N, 2F): gate, then up; f32 or bf16.
// Launch    a thread two vectors of 16 bytes of each operand; single elements where F or an address
//           does not fit.
// Numerics  fp32, as exact as the dtype of the activations needs (sigmoid.cuh); no sums.
// Traffic   forward 3 N F elements, backward 5 N F, each once.
// See       kernels/cpu/swiglu.cpp, test tests/cuda/swiglu_test.cpp.
#include "elementwise.cuh"
#include "grist/ops/swiglu.h"
#include "kernels/backends.h"
#include "sigmoid.cuh"

namespace grist::cuda {
namespace {

constexpr int kItems = 2;  // vectors of a thread: twice two or three loads under way

// Where vector `item` of a (N, F) tensor begins there, and its gate in z; its up is F further.
template <int W> struct Place {
  std::int64_t a, z;
  __device__ Place(std::int64_t item, int F) {
    const auto vectors = static_cast<unsigned>(F / W), i = static_cast<unsigned>(item);
    const std::int64_t n = i / vectors;
    const std::int64_t f = static_cast<std::int64_t>(i % vectors) * W;
    a = n * F + f;
    z = n * 2 * F + f;
  }
};

template <class T, int W>
__global__ void __launch_bounds__(kBlockThreads)
    forward_kernel(T* a, const T* z, unsigned items, int F) {
  Vec<T, W> gate[kItems], up[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t item = item_of_thread<kItems>(j);
    if (item >= items) continue;
    const Place<W> at(item, F);
    gate[j] = load<W>(z + at.z);
    up[j] = load<W>(z + at.z + F);
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t item = item_of_thread<kItems>(j);
    if (item >= items) continue;
    float out[W];
    for (int i = 0; i < W; ++i) {
      out[i] = silu<T>(gate[j][i]).value * up[j][i];
    }
    store_floats(a + Place<W>(item, F).a, out);
  }
}

template <class T, int W>
__global__ void __launch_bounds__(kBlockThreads)
    backward_kernel(T* dz, const T* da, const T* z, unsigned items, int F) {
  Vec<T, W> d[kItems], gate[kItems], up[kItems];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t item = item_of_thread<kItems>(j);
    if (item >= items) continue;
    const Place<W> at(item, F);
    d[j] = load<W>(da + at.a);
    gate[j] = load<W>(z + at.z);
    up[j] = load<W>(z + at.z + F);
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t item = item_of_thread<kItems>(j);
    if (item >= items) continue;
    const Place<W> at(item, F);
    float dgate[W], dup[W];
    for (int i = 0; i < W; ++i) {
      const Silu act = silu<T>(gate[j][i]);
      const float grad = d[j][i];
      dgate[i] = grad * up[j][i] * act.slope;
      dup[i] = grad * act.value;
    }
    store_floats(dz + at.z, dgate);
    store_floats(dz + at.z + F, dup);
  }
}

}  // namespace

void swiglu_forward(const Context& ctx, const ops::SwigluForward& a) {
  const std::int64_t N = a.a.shape[0], F = a.a.shape[1];
  for_dtype(a.z.dtype, [&](auto type) {
    using T = decltype(type);
    for_width<T>(F, {a.a.data, a.z.data}, [&](auto width) {
      constexpr int W = decltype(width)::value;
      const unsigned items = count_items(N, F / W);
      launch(forward_kernel<T, W>, blocks_for_items<kItems>(items), kBlockThreads, 0,
             stream_of(ctx), elements<T>(a.a), elements<T>(a.z), items, static_cast<int>(F));
    });
  });
}

void swiglu_backward(const Context& ctx, const ops::SwigluBackward& a) {
  const std::int64_t N = a.da.shape[0], F = a.da.shape[1];
  for_dtype(a.z.dtype, [&](auto type) {
    using T = decltype(type);
    for_width<T>(F, {a.dz.data, a.da.data, a.z.data}, [&](auto width) {
      constexpr int W = decltype(width)::value;
      const unsigned items = count_items(N, F / W);
      launch(backward_kernel<T, W>, blocks_for_items<kItems>(items), kBlockThreads, 0,
             stream_of(ctx), elements<T>(a.dz), elements<T>(a.da), elements<T>(a.z), items,
             static_cast<int>(F));
    });
  });
}

}  // namespace grist::cuda
