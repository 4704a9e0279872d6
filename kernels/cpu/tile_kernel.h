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

constexpr std::int64_t kPiece = 256;         // floats: a request of 16 cache lines
constexpr std::int64_t kStepsPerPiece = 16;  // a line at each step of the summed dim
constexpr std::int64_t kMaxPieces = kDepthBlock / kStepsPerPiece;

// What a tile requests from memory while it is computed. Without this the first pass over each
// panel, and every copy of A, would run at the memory's pace. Requests of addresses past a matrix
// are harmless.
struct Ahead {
  const float* c;  // a later tile's C
  const float* pieces[kMaxPieces];
};

// Deals out in order of need, evenly over a block's tiles: the packed panels after the first (when
// B is packed long before), then what TileBlock::next says.
class Pieces {
 public:
  Pieces(const TileBlock& t, bool own_panels, std::int64_t num_tiles)
      : t_(t),
        per_panel_((t.depth * kPanelColumns + kPiece - 1) / kPiece),
        own_((own_panels ? (t.cols - 1) / kPanelColumns : 0) * per_panel_),
        num_tiles_(num_tiles),
        slots_(t.depth < kDepthBlock ? (t.depth + kStepsPerPiece - 1) / kStepsPerPiece
                                     : kMaxPieces) {
    total_ = own_ + t.next.a.count * t.next.a.pieces + t.next.b.count * t.next.b.pieces +
             (t.next.panel != nullptr ? per_panel_ : 0);
  }

  // The next tile's requests; slots left over point at A, which is in the cache anyway.
  void deal(Ahead& ahead) {
    for (due_ += total_; due_ >= num_tiles_; due_ -= num_tiles_) ++goal_;
    for (std::int64_t slot = 0; slot < slots_; ++slot)
      ahead.pieces[slot] = dealt_ < goal_ ? take() : t_.a;
  }

 private:
  const float* take() {
    std::int64_t i = dealt_++;
    if (i < own_) {
      if (in_panel_ == per_panel_) {
        in_panel_ = 0;
        ++panel_;
      }
      return t_.b + panel_ * t_.b_stride + in_panel_++ * kPiece;
    }
    i -= own_;
    const NextRows &a = t_.next.a, &b = t_.next.b;
    if (i < a.count * a.pieces) return piece_of(a, i);
    i -= a.count * a.pieces;
    if (i < b.count * b.pieces) return piece_of(b, i);
    i -= b.count * b.pieces;
    return t_.next.panel + i * kPiece;
  }

  static const float* piece_of(const NextRows& r, std::int64_t i) {
    const std::int64_t row = r.pieces == 1 ? i : i / r.pieces;
    return r.data + (r.index != nullptr ? r.index[row] : row) * r.stride +
           (i - row * r.pieces) * kPiece;
  }

  const TileBlock& t_;
  std::int64_t per_panel_, own_, num_tiles_, slots_, total_ = 0;
  std::int64_t due_ = 0, goal_ = 0, dealt_ = 0, panel_ = 1, in_panel_ = 0;
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
  const std::int64_t step = kDepthMajor ? t.a_stride : 1;
  const float* fetch = nullptr;
  for (std::int64_t k = 0; k < t.depth; ++k) {
    if (k % kStepsPerPiece == 0) fetch = ahead.pieces[k / kStepsPerPiece % kMaxPieces];
    __builtin_prefetch(fetch, 0, 2);
    fetch += kPiece / kStepsPerPiece;
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

// The rows of a block in tiles of nearly equal height: 16 rows are 8 + 8, not 14 + 2, because a
// tile of two rows cannot keep the multipliers busy.
struct RowTiles {
  std::int64_t count, height, taller;  // the first `taller` tiles have one row more
  explicit RowTiles(std::int64_t rows)
      : count((rows + kTileRows - 1) / kTileRows), height(rows / count), taller(rows % count) {}
  std::int64_t begin(std::int64_t i) const { return i * height + (i < taller ? i : taller); }
};

// The tiles of a block in the order they are computed. Row-major A: down a strip, whose panel stays
// in the first cache while all rows meet it. Depth-major A: along the rows, as a tile of A stays in
// the cache and neighbouring tiles of C lie beside each other; below each other, at a stride of a
// power of two, their addresses would collide in the cache and in the store queue.
template <bool kDepthMajor> struct TileOrder {
  const RowTiles* tiles;
  std::int64_t strips, tile = 0, strip = 0;
  void advance() {
    if constexpr (kDepthMajor) {
      if (++strip == strips) strip = 0, ++tile;
    } else {
      if (++tile == tiles->count) tile = 0, ++strip;
    }
  }
  std::int64_t row() const { return tiles->begin(tile); }
  std::int64_t col() const { return strip * kStrip; }
};

template <bool kDepthMajor, class Table> void multiply_strips(const TileBlock& t) {
  if (t.rows == 0 || t.cols == 0) return;
  const RowTiles tiles(t.rows);
  TileOrder<kDepthMajor> now{&tiles, (t.cols + kStrip - 1) / kStrip};
  TileOrder<kDepthMajor> later = now;
  const std::int64_t count = now.strips * tiles.count;
  // A tile takes about depth * kTileRows cycles, memory some 2000 at worst.
  const std::int64_t lead = 1 + 2000 / (t.depth * kTileRows + 1);
  for (std::int64_t i = 0; i < lead && i + 1 < count; ++i) later.advance();
  Pieces pieces(t, !kDepthMajor, count);
  Ahead ahead;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t row = now.row(), col = now.col(), m = tiles.begin(now.tile + 1) - row;
    ahead.c = t.c + later.row() * t.c_stride + later.col();
    pieces.deal(ahead);
    Table::kOfRows[m - 1](t, row, t.b + col / kPanelColumns * t.b_stride + col % kPanelColumns,
                          t.c + row * t.c_stride + col,
                          t.cols - col < kStrip ? t.cols - col : std::int64_t{kStrip}, ahead);
    now.advance();
    if (i + lead + 1 < count) later.advance();
  }
}

}  // namespace
}  // namespace grist::cpu
