#pragma once
// What becomes of a tile of sums. The matmul kernels leave it in shared memory as fp32; here a warp
// takes a row, a lane V neighbouring columns of it (V consecutive elements are stored at once, so
// where V > 1 widths are multiples of V and tensors aligned to 16 bytes).
#include "matmul_problem.cuh"
#include "swiglu.cuh"

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

// An epilogue has kParts (1, or 2: the tile's left half is the gate's columns, the right half the
// up's), kDot (apply()'s values are added up over the tile's columns and given to finish_row()),
// and apply<V>(expert, row, col, sums, sums of the second part).

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
  template <int V>
  __device__ float apply(int expert, int row, int col, Few<float, V> x,
                         const Few<float, V>& /*second*/) const {
    T* to = at(expert, row, col);
    if (accumulate) {
      const auto old = load_few<V>(to);
      for (int i = 0; i < V; ++i) x.v[i] += old.v[i];
    }
    store_few(to, x);
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

  template <int V>
  __device__ float apply(int /*expert*/, int row, int col, const Few<float, V>& gate,
                         const Few<float, V>& up) const {
    T* to = z + row * std::int64_t{2} * F + col;
    const auto g = store_few(to, gate), u = store_few(to + F, up);
    Few<float, V> act;
    for (int i = 0; i < V; ++i) act.v[i] = swiglu(g.v[i], u.v[i]);
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

  template <int V>
  __device__ float apply(int /*expert*/, int row, int col, const Few<float, V>& h,
                         const Few<float, V>& /*second*/) const {
    const std::int64_t at = row * std::int64_t{2} * F + col;
    const auto gate = load_few<V>(z + at), up = load_few<V>(z + at + F);
    const float weight = row_weight[row];
    Few<float, V> dgate, dup, scaled;
    float dot = 0;
    for (int i = 0; i < V; ++i) {
      const SwigluSlopes s = swiglu_slopes(gate.v[i], up.v[i]);
      const float da = weight * h.v[i];
      dgate.v[i] = da * s.gate;
      dup.v[i] = da * s.up;
      scaled.v[i] = weight * s.a;
      dot = fmaf(h.v[i], s.a, dot);
    }
    store_few(dz + at, dgate);
    store_few(dz + at + F, dup);
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

// The block applies `e` to its tile of sums (kCols wide, rows kStride apart), after a barrier.
template <int V, int kCols, int kStride, class E>
__device__ void finish_tile(const E& e, const Tile& t, int cols, const float* sums) {
  constexpr int kPart = kCols / E::kParts;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int r = static_cast<int>(threadIdx.x) / kWarp; r < t.row_end - t.row_begin; r += warps) {
    const int row = t.row_begin + r;
    float dot = 0;
    for (int c = lane * V; c < kPart; c += kWarp * V) {
      const int col = t.col_begin + c;
      if (col >= cols) break;
      const float* first = sums + r * kStride + c;
      dot += e.template apply<V>(t.expert, row, col, load_few<V>(first),
                                 load_few<V>(first + kCols - kPart));
    }
    if constexpr (E::kDot) {
      dot = warp_sum(dot);
      if (lane == 0) e.finish_row(row, t.col_tile, dot);
    }
  }
}

}  // namespace grist::cuda
