// Weights on CUDA: dense row-major copies of the fp32 master values in the dtype of the products.
//
// Shapes    any; f32 or bf16 out of f32.
// Launch    a thread two vectors of 16 bytes of the output.
// Numerics  rounded to nearest even; f32 is a copy.
// Traffic   4 bytes read, 4 or 2 written an element.
// See       kernels/cpu/weight.cpp, test tests/cuda/weight_test.cpp.
#include "elementwise.cuh"
#include "grist/ops/weight.h"
#include "kernels/backends.h"

namespace grist::cuda {
namespace {

constexpr int kItems = 2;

template <class T, int W>
__global__ void __launch_bounds__(kBlockThreads)
    convert_kernel(T* out, const float* master, std::int64_t n) {
  float x[kItems][W];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t i = item_of_thread<kItems>(j) * W;
    if (i < n) load_floats(x[j], master + i);
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t i = item_of_thread<kItems>(j) * W;
    if (i < n) store_floats(out + i, x[j]);
  }
}

}  // namespace

std::size_t weight_bytes(DType dtype, const Shape& shape) {
  return static_cast<std::size_t>(shape.numel()) * size_of(dtype);
}

void refresh_weight(const Context& ctx, const ops::RefreshWeight& a) {
  const auto* master = a.master.as<float>();
  for_dtype(a.out.dtype, [&](auto type) {
    using T = decltype(type);
    T* out = reinterpret_cast<T*>(a.out.data);
    for_flat<T>(a.master.numel(), {out, master}, [&](auto width, auto begin, auto n) {
      constexpr int W = decltype(width)::value;
      launch(convert_kernel<T, W>, blocks_for_items<kItems>(n / W), kBlockThreads, 0,
             stream_of(ctx), out + begin, master + begin, n);
    });
  });
}

}  // namespace grist::cuda
