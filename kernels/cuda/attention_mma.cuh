#pragma once
// Tiles and matrix products of the bf16 attention kernels on tensor cores (mma.sync m16n8k16).
// Two neighbouring accumulators, rounded, are the left operand of a product over their 16 columns:
// probabilities never leave registers.
#include <grist_ptx.cuh>

#include "attention_softmax.cuh"

namespace grist::cuda::attention::mma {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;

// Rows of one head in shared memory. Eight more elements a row put the eight 16-byte rows that one
// ldmatrix reads into different banks.
template <int kRows, int kHead> struct Tile { __align__(16) bf16 row[kRows][kHead + 8]; };

__device__ inline int warp_index() {
  return static_cast<int>(threadIdx.x) / kWarp;
}

// Starts the copy of rows below `rows` from x, `stride` elements apart; the others become zeros.
template <int kRows, int kHead>
__device__ inline void start_copy(Tile<kRows, kHead>& tile, const bf16* x, int stride, int rows) {
  constexpr int kPacks = kHead / 8, kRowsAtOnce = kThreads / kPacks;
  const int r = static_cast<int>(threadIdx.x) / kPacks;
  const int d = static_cast<int>(threadIdx.x) % kPacks * 8;
  if (r >= kRowsAtOnce) return;
  x += static_cast<std::int64_t>(r) * stride + d;
#pragma unroll
  for (int i = 0; i < kRows; i += kRowsAtOnce) {
    if (kRows % kRowsAtOnce == 0 || r + i < kRows)
      ptx::cp_async_16(&tile.row[r + i][d], x, r + i < rows);
    x += static_cast<std::int64_t>(kRowsAtOnce) * stride;
  }
}

// ---- operands of one mma -----------------------------------------------------------------------

using Left = std::uint32_t[4];      // 16 x 16
using Right = std::uint32_t[2][2];  // 16 x 16 as two of 16 x 8

// Row r of the four 8x8 matrices that a lane addresses; `across`: the second matrix lies to the
// right of the first, not below.
__device__ inline const bf16* matrix_row(const bf16* corner, int stride, bool across) {
  const int matrix = lane_index() / 8;
  const int right = across ? matrix % 2 : matrix / 2, down = across ? matrix / 2 : matrix % 2;
  return corner + (down * 8 + lane_index() % 8) * stride + right * 8;
}

// tile[row..row+15][column..column+15]
template <int kRows, int kHead>
__device__ inline void load_left(Left& a, const Tile<kRows, kHead>& tile, int row, int column) {
  ptx::ldmatrix_x4(a, matrix_row(&tile.row[row][column], kHead + 8, false));
}
// The transpose of the same: what is multiplied lies along the tile's rows.
template <int kRows, int kHead>
__device__ inline void load_right_transposed(Right& b, const Tile<kRows, kHead>& tile, int row,
                                             int column) {
  std::uint32_t r[4];
  ptx::ldmatrix_x4(r, matrix_row(&tile.row[row][column], kHead + 8, true));
  b[0][0] = r[0];
  b[0][1] = r[1];
  b[1][0] = r[2];
  b[1][1] = r[3];
}
// As it lies: what is multiplied lies along the tile's columns.
template <int kRows, int kHead>
__device__ inline void load_right(Right& b, const Tile<kRows, kHead>& tile, int row, int column) {
  std::uint32_t r[4];
  ptx::ldmatrix_x4_trans(r, matrix_row(&tile.row[row][column], kHead + 8, false));
  b[0][0] = r[0];
  b[0][1] = r[1];
  b[1][0] = r[2];
  b[1][1] = r[3];
}

// ---- products of a warp -------------------------------------------------------------------------

// out = a[row..] b^T: rows of both are heads.
template <int kTiles, int kColumns, int kRows, int kHead>
__device__ inline void dot_rows(Sums<kTiles, kColumns>& out, const Tile<kRows, kHead>& a, int row,
                                const Tile<kColumns, kHead>& b) {
  out.clear();
#pragma unroll
  for (int d = 0; d < kHead; d += 16) {
    Left left[kTiles];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) load_left(left[m], a, row + m * 16, d);
#pragma unroll
    for (int n = 0; n < kColumns; n += 16) {
      Right right;
      load_right_transposed(right, b, n, d);
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        ptx::mma_m16n8k16(out.v[m][n / 8], left[m], right[0]);
        ptx::mma_m16n8k16(out.v[m][n / 8 + 1], left[m], right[1]);
      }
    }
  }
}

// out += w b, the weights w rounded to bf16.
template <int kTiles, int kColumns, int kHead>
__device__ inline void add_weighted(Sums<kTiles, kHead>& out, const Sums<kTiles, kColumns>& w,
                                    const Tile<kColumns, kHead>& b) {
#pragma unroll
  for (int k = 0; k < kColumns; k += 16) {
    Left left[kTiles];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &w.v[m][k / 8 + i / 2][i % 2 * 2];
        left[m][i] = pack(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kHead; n += 16) {
      Right right;
      load_right(right, b, k, n);
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        ptx::mma_m16n8k16(out.v[m][n / 8], left[m], right[0]);
        ptx::mma_m16n8k16(out.v[m][n / 8 + 1], left[m], right[1]);
      }
    }
  }
}

// Writes factor * sums to rows below `rows` of x, `stride` elements apart. The tile's rows from
// `row` on, which no other warp uses any more, serve to write 16 bytes at a time.
template <int kTiles, int kRows, int kHead>
__device__ inline void store_sums(bf16* x, int stride, int rows, Tile<kRows, kHead>& tile, int row,
                                  const Sums<kTiles, kHead>& sums, float factor) {
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kHead / 8; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* pair = &sums.v[m][n][half * 2];
        *reinterpret_cast<std::uint32_t*>(
            &tile.row[row + m * 16 + half * 8 + lane_row()][n * 8 + lane_column()]) =
            pack(pair[0] * factor, pair[1] * factor);
      }
    }
  }
  __syncwarp();
  constexpr int kPacks = kHead / 8;
#pragma unroll 2
  for (int i = lane_index(); i < kTiles * 16 * kPacks; i += kWarp) {
    const int r = row + i / kPacks, d = i % kPacks * 8;
    if (r < rows)
      *reinterpret_cast<Pack<bf16>*>(x + static_cast<std::int64_t>(r) * stride + d) =
          *reinterpret_cast<const Pack<bf16>*>(&tile.row[r][d]);
  }
}

// Calls f with the head size as a constant; false where there is no kernel for it.
template <class F> bool for_head(int Dh, F&& f) {
  switch (Dh) {
    case 16: f(std::integral_constant<int, 16>{}); return true;
    case 32: f(std::integral_constant<int, 32>{}); return true;
    case 64: f(std::integral_constant<int, 64>{}); return true;
    case 96: f(std::integral_constant<int, 96>{}); return true;
    case 128: f(std::integral_constant<int, 128>{}); return true;
    default: return false;
  }
}

}  // namespace grist::cuda::attention::mma
