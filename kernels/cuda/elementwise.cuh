#pragma once
// What memory-bound kernels share: 16-byte loads where shapes and addresses allow them, else single
// elements; and which elements a thread works on.
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "device.cuh"
#include "grist/core/error.h"
#include "grist/core/tensor.h"
#include "launch.h"

namespace grist::cuda {

constexpr int kBlockThreads = 256;

// The elements of a view whose dtype the caller has looked at (for_dtype).
template <class T> T* elements(const TensorView& v) {
  return static_cast<T*>(v.data);
}
template <class T> const T* elements(const ConstTensorView& v) {
  return static_cast<const T*>(v.data);
}

// W consecutive elements, loaded at once: 16 bytes, or a single element. Element i is a float.
template <class T, int W> struct alignas(W * sizeof(T)) Vec {
  static_assert(W == 1 || W * sizeof(T) == 16, "one load");
  T v[W];
  __device__ float operator[](int i) const { return to_float(v[i]); }
  __device__ static Vec of(const float (&x)[W]) {
    Vec out;
    for (int i = 0; i < W; ++i) out.v[i] = from_float<T>(x[i]);
    return out;
  }
};
// Two to a register, which an array of 16-bit values is not once it is held.
template <> struct alignas(16) Vec<bf16, 8> {
  unsigned w[4];
  __device__ float operator[](int i) const {
    return __uint_as_float(i % 2 == 0 ? w[i / 2] << 16 : w[i / 2] & 0xffff0000U);
  }
  __device__ static Vec of(const float (&x)[8]) {
    Vec out;
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 two = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
      memcpy(&out.w[i], &two, sizeof two);
    }
    return out;
  }
};
template <int W, class T> __device__ inline Vec<T, W> load(const T* p) {
  return *reinterpret_cast<const Vec<T, W>*>(p);
}
template <int W, class T> __device__ inline void store(T* p, const Vec<T, W>& x) {
  *reinterpret_cast<Vec<T, W>*>(p) = x;
}

// W consecutive elements as floats, by as many loads as that takes.
template <int W, class T> __device__ inline void load_floats(float (&to)[W], const T* p) {
  constexpr int kPart = W == 1 ? 1 : Pack<T>::kSize;
  for (int j = 0; j < W; j += kPart) {
    const Vec<T, kPart> part = load<kPart>(p + j);
    for (int i = 0; i < kPart; ++i) to[j + i] = part[i];
  }
}
template <int W, class T> __device__ inline void store_floats(T* p, const float (&from)[W]) {
  constexpr int kPart = W == 1 ? 1 : Pack<T>::kSize;
  for (int j = 0; j < W; j += kPart) {
    float part[kPart];
    for (int i = 0; i < kPart; ++i) part[i] = from[j + i];
    store(p + j, Vec<T, kPart>::of(part));
  }
}

// f(std::integral_constant<int, W>): W fills 16 bytes of T where `width` is a multiple of it and
// all addresses (null: no operand) are multiples of 16 bytes; else 1.
template <class T, class F>
void for_width(std::int64_t width, std::initializer_list<const void*> addresses, F&& f) {
  bool wide = width % Pack<T>::kSize == 0;
  for (const void* p : addresses) wide = wide && reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
  if (wide)
    f(std::integral_constant<int, Pack<T>::kSize>{});
  else
    f(std::integral_constant<int, 1>{});
}

// f(width, begin, count) for a vector of n elements: what whole loads cover, then the rest.
template <class T, class F>
void for_flat(std::int64_t n, std::initializer_list<const void*> addresses, F&& f) {
  std::int64_t whole = 0;
  for_width<T>(0, addresses, [&](auto width) {
    constexpr int W = decltype(width)::value;
    whole = n / W * W;
    if (whole > 0) f(width, std::int64_t{0}, whole);
  });
  if (whole < n) f(std::integral_constant<int, 1>{}, whole, n - whole);
}

// Work on `rows` rows of `per_row` vectors is numbered in 32 bits: divisions are cheap then.
inline unsigned count_items(std::int64_t rows, std::int64_t per_row) {
  const std::int64_t n = rows * per_row;
  if (n > std::numeric_limits<std::int32_t>::max())
    throw Error(ExitCode::internal,
                "an operand is too large for one launch; use a smaller micro_batch_size");
  return static_cast<unsigned>(n);
}

// Item j of the calling thread, where a block takes kItems * kBlockThreads consecutive ones.
template <int kItems> __device__ inline std::int64_t item_of_thread(int j) {
  return (static_cast<std::int64_t>(blockIdx.x) * kItems + j) * kBlockThreads + threadIdx.x;
}
template <int kItems> inline unsigned blocks_for_items(std::int64_t items) {
  return blocks_for(items, kItems * kBlockThreads);
}

}  // namespace grist::cuda
