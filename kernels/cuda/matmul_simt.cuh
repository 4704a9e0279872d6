#pragma once
// Matmul without tensor cores, for every dtype and shape.
//
// Shapes    those of matmul_problem.cuh; f32 or bf16 operands, any widths.
// Launch    a block of 256 threads a tile of 64 x 64 outputs, a thread 4 x 4; 16 of the summed
//           index a step.
// Numerics  fp32 arithmetic, each output one chain of fused multiply-adds in ascending order,
//           starting from 0 (or from the old value when it is added to), as on the CPU.
// Traffic   an operand is read once for each 64 rows or columns of the other.
// See       kernels/cuda/grouped_matmul.cuh, tests tests/cuda/linear_test.cpp,
//           tests/cuda/experts_test.cpp.
#include <grist_ptx.cuh>

#include "matmul_epilogue.cuh"

namespace grist::cuda::simt {

constexpr int kTile = 64;   // rows and columns of a block's tile
constexpr int kDepth = 16;  // summed per step
constexpr int kThreads = 256;
constexpr int kOwn = 4;  // a thread's outputs: kOwn x kOwn
constexpr int kStride = kTile + 4;

struct Shared {
  float a[kDepth][kStride];
  float b[kDepth][kStride];
  float sums[kTile][kStride];
};

// One step's part of an operand, transposed where its rows run along the tile's side, with zeros
// beyond its ends. Neighbouring threads read neighbouring elements.
template <bool kRowsAlongDepth, class T, class Side>
__device__ void load_operand(float (&to)[kDepth][kStride], const Rows<T>& from, const Side& side,
                             int depth, int depth_end) {
  constexpr int kInner = kRowsAlongDepth ? kTile : kDepth;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += kThreads) {
    const int inner = i % kInner, outer = i / kInner;
    const int d = kRowsAlongDepth ? outer : inner, place = kRowsAlongDepth ? inner : outer;
    const int k = depth + d, n = side.at(place);
    float x = 0;
    if (n >= 0 && k < depth_end) {
      const int row = from.source(kRowsAlongDepth ? k : n);
      x = to_float(from.data[row * from.stride + (kRowsAlongDepth ? n : k)]);
    }
    to[d][place] = x;
  }
}

__device__ inline void multiply_step(float (&sum)[kOwn][kOwn], const Shared& s, int row, int col) {
#pragma unroll
  for (int d = 0; d < kDepth; ++d) {
    const auto a = load_few<kOwn>(&s.a[d][row]), b = load_few<kOwn>(&s.b[d][col]);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
#pragma unroll
      for (int j = 0; j < kOwn; ++j) sum[i][j] = fmaf(a.v[i], b.v[j], sum[i][j]);
    }
  }
}

// The old values, where the chains go on from them; true if so.
template <class E>
__device__ bool load_old(float (&sum)[kOwn][kOwn], const E& e, const Tile& t, int cols, int row,
                         int col) {
  if constexpr (requires { e.accumulate; }) {
    if (!e.accumulate) return false;
    for (int i = 0; i < kOwn; ++i) {
      for (int j = 0; j < kOwn; ++j) {
        const int r = t.row_begin + row + i, c = t.col_begin + col + j;
        if (r < t.row_end && c < cols) sum[i][j] = to_float(*e.at(t.expert, r, c));
      }
    }
    return true;
  }
  return false;
}

template <Form kForm, class TA, class TB, class E>
__global__ void __launch_bounds__(kThreads, 2) matmul_kernel(Matmul<TA, TB> p, E e) {
  constexpr int kCols = kTile / E::kParts;
  const Tile t = find_tile<kForm, kTile, kCols>(p);
  if (nothing_to_do(t, e)) return;
  GRIST_DYNAMIC_SHARED(Shared, s);
  const Axis<kTile, 1> rows{t.row_begin, t.row_end};
  const Axis<kTile, E::kParts> cols{t.col_begin, p.cols, p.cols};
  p.b.data += t.expert * p.b_group;
  const int row = static_cast<int>(threadIdx.x) / (kTile / kOwn) * kOwn;
  const int col = static_cast<int>(threadIdx.x) % (kTile / kOwn) * kOwn;
  float sum[kOwn][kOwn] = {};
  const bool has_old = load_old(sum, e, t, p.cols, row, col);
  for (int d = t.depth_begin; d < t.depth_end; d += kDepth) {
    load_operand<kForm == Form::weight_gradient>(s.a, p.a, rows, d, t.depth_end);
    load_operand<kForm != Form::forward>(s.b, p.b, cols, d, t.depth_end);
    __syncthreads();
    multiply_step(sum, s, row, col);
    __syncthreads();
  }
  for (int i = 0; i < kOwn; ++i) {
    for (int j = 0; j < kOwn; ++j) s.sums[row + i][col + j] = sum[i][j];
  }
  __syncthreads();
  if constexpr (requires { e.accumulate; }) e.accumulate = e.accumulate && !has_old;
  finish_tile<1, kTile, kStride>(e, t, p.cols, &s.sums[0][0]);
}

}  // namespace grist::cuda::simt
