#pragma once
// The matmul micro-kernel over a vector type V, compiled once for each instruction set (see
// vector_kernel.h). A tile of kTileRows x kStrip outputs stays in registers while the summed dim
// runs; each output is one fused multiply-add chain.
//
// Before inclusion: V, and constants kTileRows and kStripVectors chosen so that kTileRows *
// kStripVectors accumulators, kStripVectors values of B and one of A fit the registers.
#include "kernels/cpu/isa.h"

namespace grist::cpu {
namespace {

constexpr int kStrip = kStripVectors * V::width;  // columns of a tile
static_assert(kPanelColumns % kStrip == 0, "a panel is whole strips");

// What the next tiles will read, requested from memory while this tile is computed: the next tile's
// C, and a part of the next panel of B. Addresses past the matrix are harmless.
struct Ahead {
  const float* b;
  const float* c;
};

// C tile at c: M rows, kStrip columns. A[m, k]: row-major a[m * kRowStride + k], or depth-major a[k
// * a_stride + m]. B[k, n] = b[k * 32 + n].
template <int M, bool kDepthMajor>
inline void multiply_tile(const TileBlock& t, const float* a, const float* b, float* c,
                          std::int64_t c_stride, const Ahead& ahead) {
  V::T acc[M][kStripVectors];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < kStripVectors; ++v)
      acc[m][v] = t.accumulate ? V::load(c + m * c_stride + v * V::width) : V::set1(0.0F);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    for (int j = 0; j < kStrip; j += 16) __builtin_prefetch(ahead.c + m * t.c_stride + j, 1, 3);
  }
  [[maybe_unused]] const char* fetch = reinterpret_cast<const char*>(ahead.b);
  const std::int64_t step = kDepthMajor ? t.a_stride : 1;
  for (std::int64_t k = 0; k < t.depth; ++k) {
    if constexpr (!kDepthMajor) {
      __builtin_prefetch(fetch, 0, 2);
      fetch += 64;
    }
    V::T bv[kStripVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kStripVectors; ++v) bv[v] = V::load(b + v * V::width);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const V::T av = V::set1(a[kDepthMajor ? m : m * kRowStride]);
#pragma GCC unroll 8
      for (int v = 0; v < kStripVectors; ++v) acc[m][v] = V::fma(av, bv[v], acc[m][v]);
    }
    a += step;
    b += kPanelColumns;
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < kStripVectors; ++v) V::store(c + m * c_stride + v * V::width, acc[m][v]);
  }
}

// As multiply_tile for the last n < kStrip columns: works on a full tile beside C.
template <int M, bool kDepthMajor>
void multiply_edge_tile(const TileBlock& t, const float* a, const float* b, float* c,
                        std::int64_t n, const Ahead& ahead) {
  alignas(64) float full[M * kStrip] = {};
  for (int m = 0; m < M && t.accumulate; ++m) {
    for (std::int64_t j = 0; j < n; ++j) full[m * kStrip + j] = c[m * t.c_stride + j];
  }
  multiply_tile<M, kDepthMajor>(t, a, b, full, kStrip, ahead);
  for (int m = 0; m < M; ++m) {
    for (std::int64_t j = 0; j < n; ++j) c[m * t.c_stride + j] = full[m * kStrip + j];
  }
}

// All row tiles of one strip of columns. Rows are shared out evenly: 16 rows are 8 + 8, not 14 + 2,
// because a tile of two rows cannot keep the multipliers busy.
template <int M, bool kDepthMajor>
void multiply_some(const TileBlock& t, std::int64_t row, const float* b, float* c, std::int64_t n,
                   const Ahead& ahead) {
  const float* a = t.a + (kDepthMajor ? row : row * kRowStride);
  if (n == kStrip) {
    multiply_tile<M, kDepthMajor>(t, a, b, c, t.c_stride, ahead);
  } else {
    multiply_edge_tile<M, kDepthMajor>(t, a, b, c, n, ahead);
  }
}

using TileFunction = void (*)(const TileBlock&, std::int64_t, const float*, float*, std::int64_t,
                              const Ahead&);

template <bool kDepthMajor, int... M> struct TileTable {
  static constexpr TileFunction kOfRows[] = {multiply_some<M, kDepthMajor>...};
};

template <class Table> void multiply_strips(const TileBlock& t) {
  const std::int64_t tiles = (t.rows + kTileRows - 1) / kTileRows;
  for (std::int64_t col = 0; col < t.cols; col += kStrip) {
    const float* b = t.b + col / kPanelColumns * t.b_stride + col % kPanelColumns;
    const std::int64_t n = t.cols - col < kStrip ? t.cols - col : std::int64_t{kStrip};
    std::int64_t row = 0;
    for (std::int64_t i = 0; i < tiles; ++i) {
      const std::int64_t m = t.rows / tiles + (i < t.rows % tiles ? 1 : 0);
      float* c = t.c + row * t.c_stride + col;
      const bool last = i + 1 == tiles;
      const Ahead ahead{b + t.b_stride + t.depth * kPanelColumns / tiles * i,
                        last ? t.c + col + kStrip : c + m * t.c_stride};
      Table::kOfRows[m - 1](t, row, b, c, n, ahead);
      row += m;
    }
  }
}

}  // namespace
}  // namespace grist::cpu
