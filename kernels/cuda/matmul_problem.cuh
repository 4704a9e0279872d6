#pragma once
// What the matmul kernels compute: the products of all experts in one launch. A linear layer is the
// case of one expert. E experts, `index` of a gathered operand as in ops/experts.h.
//
//   forward          C[r, n] = sum_k A[index[r], k] W_e[n, k]      r: a row of expert e
//   backward_input   C[r, n] = sum_k A[index[r], k] W_e[k, n]
//   weight_gradient  C_e[m, n] = sum_r A[index_a[r], m] B[index_b[r], n]
//
// Every output is one sum in ascending order of the summed index: it depends on neither the tile
// that it falls into nor its neighbours.
#include "device.cuh"

namespace grist::cuda {

enum class Form { forward, backward_input, weight_gradient };

// Row-major matrix whose rows may be gathered.
template <class T> struct Rows {
  const T* data;
  std::int64_t stride;  // elements from a row to the next
  const std::int32_t* index = nullptr;
  __device__ int source(int r) const { return index == nullptr ? r : index[r]; }
};

// Rows [begin, end) of one expert, at most a tile's height; none: nothing to do.
struct alignas(16) RowTile {
  int expert, begin, end, unused;
};

template <class TA, class TB> struct Matmul {
  Rows<TA> a;
  Rows<TB> b;                // W, or the other rows of a weight gradient
  std::int64_t b_group = 0;  // elements from an expert's W to the next's
  int experts = 1;
  const std::int32_t* offsets = nullptr;  // (experts + 1) bounds of their rows; null: one has all
  const RowTile* tiles = nullptr;         // made from offsets; not for weight gradients
  int rows;                               // of C; a bound of them where experts share C
  int cols;                               // of C, of one part of it (see Epilogue::kParts)
  int depth;                              // summed over; a bound in a weight gradient
};

// Part of C that a block computes.
struct Tile {
  int expert;
  int row_begin, row_end;
  int col_begin;
  int col_tile;
  int depth_begin, depth_end;
};

constexpr int tiles_of(int n, int size) {
  return n / size + (n % size != 0 ? 1 : 0);
}

// The block's tile: columns fastest, so that neighbours in time share rows of A and one expert's W.
template <Form kForm, int kRows, int kCols, class TA, class TB>
__device__ Tile find_tile(const Matmul<TA, TB>& p) {
  const int col_tiles = tiles_of(p.cols, kCols);
  Tile t;
  t.col_tile = static_cast<int>(blockIdx.x) % col_tiles;
  t.col_begin = t.col_tile * kCols;
  int row_tile = static_cast<int>(blockIdx.x) / col_tiles;
  t.expert = 0;
  t.depth_begin = 0;
  t.depth_end = p.depth;
  if constexpr (kForm == Form::weight_gradient) {
    const int row_tiles = tiles_of(p.rows, kRows);
    t.expert = row_tile / row_tiles;
    row_tile %= row_tiles;
    if (p.offsets != nullptr) {
      t.depth_begin = p.offsets[t.expert];
      t.depth_end = p.offsets[t.expert + 1];
    }
  } else if (p.tiles != nullptr) {
    const RowTile listed = p.tiles[row_tile];
    t.expert = listed.expert;
    t.row_begin = listed.begin;
    t.row_end = listed.end;
    return t;
  }
  t.row_begin = row_tile * kRows;
  t.row_end = min(p.rows, t.row_begin + kRows);
  return t;
}

// From a place along one side of a tile to an index of the matrix; -1 beyond the end. A side of
// two parts is two equally long runs of columns that lie `shift` apart (gate and up).
template <int kSize, int kParts> struct Axis {
  int begin, end;
  int shift = 0;
  __device__ int at(int i) const {
    const int part = i / (kSize / kParts), n = begin + i % (kSize / kParts);
    return n < end ? n + part * shift : -1;
  }
};

}  // namespace grist::cuda
