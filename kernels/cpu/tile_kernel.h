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
  const float* c;  // the next tile's C
  const float* pieces[kMaxPieces];
};

// Deals out in order of need, evenly over a block's tiles: the block's own panels after the first,
// then what TileBlock::next says.
class Pieces {
 public:
  Pieces(const TileBlock& t, std::int64_t num_tiles)
      : t_(t),
        per_panel_((t.depth * kPanelColumns + kPiece - 1) / kPiece),
        rows_begin_(((t.cols + kPanelColumns - 1) / kPanelColumns - 1) * per_panel_),
        panel_begin_(rows_begin_ + t.next.num_rows),
        total_(panel_begin_ + (t.next.panel != nullptr ? per_panel_ : 0)),
        num_tiles_(num_tiles),
        slots_((t.depth + kStepsPerPiece - 1) / kStepsPerPiece) {}

  // The next tile's requests; slots left over point at A, which is in the cache anyway.
  void deal(Ahead& ahead) {
    ++tile_;
    const std::int64_t goal = total_ * tile_ / num_tiles_;
    for (std::int64_t slot = 0; slot < slots_; ++slot)
      ahead.pieces[slot] = dealt_ < goal ? take() : t_.a;
  }

 private:
  const float* take() {
    const std::int64_t i = dealt_++;
    if (i < rows_begin_) {
      if (in_panel_ == per_panel_) {
        in_panel_ = 0;
        ++panel_;
      }
      return t_.b + panel_ * t_.b_stride + in_panel_++ * kPiece;
    }
    if (i < panel_begin_) {
      const std::int64_t row = i - rows_begin_;
      const NextBlock& n = t_.next;
      return n.rows + (n.index != nullptr ? n.index[row] : row) * n.row_stride;
    }
    return t_.next.panel + (i - panel_begin_) * kPiece;
  }

  const TileBlock& t_;
  std::int64_t per_panel_, rows_begin_, panel_begin_, total_, num_tiles_, slots_;
  std::int64_t tile_ = 0, dealt_ = 0, panel_ = 1, in_panel_ = 0;
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
  [[maybe_unused]] const float* fetch = nullptr;
  for (std::int64_t k = 0; k < t.depth; ++k) {
    if constexpr (!kDepthMajor) {
      if (k % kStepsPerPiece == 0) fetch = ahead.pieces[k / kStepsPerPiece];
      __builtin_prefetch(fetch, 0, 2);
      fetch += kPiece / kStepsPerPiece;
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

template <bool kDepthMajor, class Table> void multiply_strips(const TileBlock& t) {
  const std::int64_t row_tiles = (t.rows + kTileRows - 1) / kTileRows;
  Pieces pieces(t, row_tiles * ((t.cols + kStrip - 1) / kStrip));
  Ahead ahead;
  for (std::int64_t col = 0; col < t.cols; col += kStrip) {
    const float* b = t.b + col / kPanelColumns * t.b_stride + col % kPanelColumns;
    const std::int64_t n = t.cols - col < kStrip ? t.cols - col : std::int64_t{kStrip};
    std::int64_t row = 0;
    for (std::int64_t i = 0; i < row_tiles; ++i) {
      const std::int64_t m = t.rows / row_tiles + (i < t.rows % row_tiles ? 1 : 0);
      float* c = t.c + row * t.c_stride + col;
      ahead.c = i + 1 == row_tiles ? t.c + col + kStrip : c + m * t.c_stride;
      if constexpr (!kDepthMajor) pieces.deal(ahead);
      Table::kOfRows[m - 1](t, row, b, c, n, ahead);
      row += m;
    }
  }
}

}  // namespace
}  // namespace grist::cpu
