#pragma once
// What becomes of a tile of sums. The matmul kernels leave it in shared memory as fp32; here a warp
// takes a row, a lane V neighbouring columns of it (V consecutive elements are stored at once, so
// where V > 1 widths are multiples of V and tensors aligned to 16 bytes).
#include "matmul_problem.cuh"
#include "sigmoid.cuh"

namespace grist::cuda {

template <class T, int V> struct alignas(sizeof(T) * V) Few { T v[V]; };
template <int V, class T> __device__ Few<float, V> load_few(const T* from) {
  const auto x = *reinterpret_cast<const Few<T, V>*>(from);
  Few<float, V> out;
  for (int i = 0; i < V; ++i) out.v[i] = to_float(x.v[i]);
  return out;
}
// Returns what was stored, that is x rounded to T.
template <class T, int V> __device__ Few<float, V> store_few(T* to, const Few<float, V>& x) {
  Few<T, V> rounded;
  Few<float, V> stored;
  for (int i = 0; i < V; ++i) {
    rounded.v[i] = from_float<T>(x.v[i]);
    stored.v[i] = to_float(rounded.v[i]);
  }
  *reinterpret_cast<Few<T, V>*>(to) = rounded;
  return stored;
}

// An epilogue has
//   kParts    1, or 2: the tile's left half is the gate's columns, the right half the up's
//   kDot      whether apply()'s values are added up over the tile's columns, for finish_row()
//   load<V>   what apply<V> needs from memory, read for several rows before the first is stored
//   apply<V>(expert, row, col, what load() gave, sums, sums of the second part)

struct Nothing {};

// C = sums, or C += sums.
template <class T> struct Store {
  static constexpr int kParts = 1;
  static constexpr bool kDot = false;
  T* c;
  std::int64_t stride;
  std::int64_t group = 0;  // elements from an expert's C to the next's, where each has its own
  bool accumulate = false;

  __device__ T* at(int expert, int row, int col) const {
    return c + expert * group + row * stride + col;
  }
  template <int V> __device__ Few<float, V> load(int expert, int row, int col) const {
    return accumulate ? load_few<V>(at(expert, row, col)) : Few<float, V>{};
  }
  template <int V>
  __device__ float apply(int expert, int row, int col, const Few<float, V>& old, Few<float, V> x,
                         const Few<float, V>& /*second*/) const {
    if (accumulate) {
      for (int i = 0; i < V; ++i) x.v[i] += old.v[i];
    }
    store_few(at(expert, row, col), x);
    return 0;
  }
};

// z = sums; a = swiglu(z as stored): backward makes a again from the stored z.
template <class T> struct StoreSwiglu {
  static constexpr int kParts = 2;
  static constexpr bool kDot = false;
  T* z;
  T* a;
  int F;

  template <int V> __device__ Nothing load(int, int, int) const { return {}; }
  template <int V>
  __device__ float apply(int /*expert*/, int row, int col, Nothing, const Few<float, V>& gate,
                         const Few<float, V>& up) const {
    T* to = z + row * std::int64_t{2} * F + col;
    const auto g = store_few(to, gate), u = store_few(to + F, up);
    Few<float, V> act;
    for (int i = 0; i < V; ++i) act.v[i] = silu<T>(g.v[i]).value * u.v[i];
    store_few(a + row * std::int64_t{F} + col, act);
    return 0;
  }
};

// The sums are h: dz, weighted_a and this tile's part of <h, a> (ops/experts.h).
template <class T> struct StoreSwigluGradient {
  static constexpr int kParts = 1;
  static constexpr bool kDot = true;
  T* dz;
  T* weighted_a;
  float* partial;  // (column tiles, R)
  const T* z;
  const float* row_weight;
  int F;
  std::int64_t R;

  template <int V> struct Loaded {
    Few<float, V> gate, up;
    float weight;
  };
  template <int V> __device__ Loaded<V> load(int /*expert*/, int row, int col) const {
    const T* from = z + row * std::int64_t{2} * F + col;
    return {load_few<V>(from), load_few<V>(from + F), row_weight[row]};
  }
  template <int V>
  __device__ float apply(int /*expert*/, int row, int col, const Loaded<V>& x,
                         const Few<float, V>& h, const Few<float, V>& /*second*/) const {
    Few<float, V> dgate, dup, scaled;
    float dot = 0;
    for (int i = 0; i < V; ++i) {
      const Silu silu_of_gate = silu<T>(x.gate.v[i]);
      const float a = silu_of_gate.value * x.up.v[i], da = x.weight * h.v[i];
      dgate.v[i] = da * x.up.v[i] * silu_of_gate.slope;
      dup.v[i] = da * silu_of_gate.value;
      scaled.v[i] = x.weight * a;
      dot = fmaf(h.v[i], a, dot);
    }
    T* to = dz + row * std::int64_t{2} * F + col;
    store_few(to, dgate);
    store_few(to + F, dup);
    store_few(weighted_a + row * std::int64_t{F} + col, scaled);
    return dot;
  }
  __device__ void finish_row(int row, int col_tile, float dot) const {
    partial[col_tile * R + row] = dot;
  }
};

// A block without rows; or one that would add sums of nothing.
template <class E> __device__ bool nothing_to_do(const Tile& t, const E& e) {
  if (t.row_begin >= t.row_end) return true;
  if constexpr (requires { e.accumulate; }) return e.accumulate && t.depth_begin >= t.depth_end;
  return false;
}

constexpr int kRowsAtOnce = 4;

// The block applies `e` to its tile of sums (kCols wide, rows kStride apart), after a barrier.
template <int V, int kCols, int kStride, class E>
__device__ void finish_tile(const E& e, const Tile& t, int cols, const float* sums) {
  constexpr int kPart = kCols / E::kParts;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp, rows = t.row_end - t.row_begin;
  for (int first = static_cast<int>(threadIdx.x) / kWarp; first < rows;
       first += warps * kRowsAtOnce) {
    float dot[kRowsAtOnce] = {};
    for (int c = lane * V; c < kPart && t.col_begin + c < cols; c += kWarp * V) {
      const int col = t.col_begin + c;
      decltype(e.template load<V>(0, 0, 0)) loaded[kRowsAtOnce];
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const int r = first + i * warps;
        if (r < rows) loaded[i] = e.template load<V>(t.expert, t.row_begin + r, col);
      }
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const int r = first + i * warps;
        if (r >= rows) break;
        const float* own = sums + r * kStride + c;
        dot[i] += e.template apply<V>(t.expert, t.row_begin + r, col, loaded[i], load_few<V>(own),
                                      load_few<V>(own + kCols - kPart));
      }
    }
    if constexpr (E::kDot) {
#pragma unroll
      for (int i = 0; i < kRowsAtOnce; ++i) {
        const float sum = warp_sum(dot[i]);
        const int r = first + i * warps;
        if (lane == 0 && r < rows) e.finish_row(t.row_begin + r, t.col_tile, sum);
      }
    }
  }
}

}  // namespace grist::cuda
