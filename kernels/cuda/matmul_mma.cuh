#pragma once
// Matmul by tensor cores, sm_80 and later: bf16 operands, fp32 sums.
//
// Shapes    those of matmul_problem.cuh that fits() takes: 16-byte pieces must be whole.
// Launch    a block of four warps makes a tile of 128 x 128, a warp 64 x 64 of it. Operands come
//           through shared memory in four stages of asynchronous copies. Rows that run along the
//           tile's side (K-major) and rows that run along the summed index (MN-major) are copied as
//           they are; ldmatrix transposes the latter.
// Numerics  fp32 sums in ascending order of the summed index, 16 of it an instruction.
// Traffic   an operand is read once for each 128 rows or columns of the other.
// See       kernels/cuda/grouped_matmul.cuh, tests tests/cuda/linear_test.cpp,
//           tests/cuda/experts_test.cpp.
#include <grist_ptx.cuh>

#include "matmul_epilogue.cuh"

namespace grist::cuda::mma {

constexpr int kTile = 128;
constexpr int kDepth = 32;  // summed per stage
constexpr int kStages = 4;
constexpr int kThreads = 128;
constexpr int kWarpTile = 64;
constexpr int kPiece = 8;           // elements of one copy: 16 bytes
constexpr int kStride = kTile + 8;  // of the sums: no bank conflicts between rows
constexpr int kOperand = kTile * kDepth;
constexpr int kOwnPieces = kOperand / kPiece / kThreads;  // that a thread copies per stage

struct Stage {
  bf16 a[kOperand];
  bf16 b[kOperand];
};
union Shared {
  Stage stages[kStages];
  float sums[kTile * kStride];
};

// Where the 16-byte piece of a row lies in an operand's stage. Eight pieces that ldmatrix reads at
// once, one of each of eight rows, lie in different banks.
template <bool kRowsAlongDepth> __device__ int place(int row, int piece) {
  constexpr int kPieces = (kRowsAlongDepth ? kTile : kDepth) / kPiece;
  const int turned = kPieces >= 8 ? piece ^ (row & 7) : piece ^ (row / 2 % kPieces);
  return (row * kPieces + turned) * kPiece;
}

// Copies one operand's part of a stage, with zeros beyond its ends.
template <bool kRowsAlongDepth, class Side> class Copier;

template <class Side> class Copier<false, Side> {
  static constexpr int kPieces = kDepth / kPiece;
  static constexpr int kRowStep = kThreads / kPieces;

 public:
  __device__ Copier(const Rows<bf16>& from, const Side& side, int /*begin*/, int end)
      : row_(static_cast<int>(threadIdx.x) / kPieces),
        piece_(static_cast<int>(threadIdx.x) % kPieces),
        end_(end) {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      const int n = side.at(row_ + i * kRowStep);
      valid_[i] = n >= 0;
      from_[i] = from.data + (n < 0 ? 0 : from.source(n) * from.stride) + piece_ * kPiece;
    }
  }
  __device__ void copy(bf16* to, int depth) {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      ptx::cp_async_16(to + place<false>(row_ + i * kRowStep, piece_), from_[i] + depth,
                       valid_[i] && depth + piece_ * kPiece < end_);
    }
  }

 private:
  int row_, piece_, end_;
  bool valid_[kOwnPieces];
  const bf16* from_[kOwnPieces];
};

template <class Side> class Copier<true, Side> {
  static constexpr int kPieces = kTile / kPiece;
  static constexpr int kRowStep = kThreads / kPieces;

 public:
  __device__ Copier(const Rows<bf16>& from, const Side& side, int begin, int end)
      : rows_(from),
        row_(static_cast<int>(threadIdx.x) / kPieces),
        piece_(static_cast<int>(threadIdx.x) % kPieces),
        end_(end) {
    const int n = side.at(piece_ * kPiece);
    if (n < 0) end_ = begin;
    rows_.data += n < 0 ? 0 : n;
    find_sources(begin);
  }
  __device__ void copy(bf16* to, int depth) {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      ptx::cp_async_16(to + place<true>(row_ + i * kRowStep, piece_),
                       rows_.data + source_[i] * rows_.stride, depth + row_ + i * kRowStep < end_);
    }
    find_sources(depth + kDepth);
  }

 private:
  // The rows of the next stage, ahead of time: the copies need not wait for the index.
  __device__ void find_sources(int depth) {
#pragma unroll
    for (int i = 0; i < kOwnPieces; ++i) {
      const int k = depth + row_ + i * kRowStep;
      source_[i] = k < end_ ? rows_.source(k) : 0;
    }
  }
  Rows<bf16> rows_;
  int row_, piece_, end_;
  int source_[kOwnPieces];
};

// Fragment of A: rows m.. of 16, summed index k.. of 16 (ptx::mma_m16n8k16).
template <bool kRowsAlongDepth>
__device__ void load_a(std::uint32_t (&a)[4], const bf16* from, int m, int k) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if constexpr (kRowsAlongDepth) {
    const int row = k + lane / 16 * 8 + lane % 8, piece = m / kPiece + lane / 8 % 2;
    ptx::ldmatrix_x4_trans(a, from + place<true>(row, piece));
  } else {
    ptx::ldmatrix_x4(a, from + place<false>(m + lane % 16, k / kPiece + lane / 16));
  }
}
// Two fragments of B side by side: columns n.. of 16.
template <bool kRowsAlongDepth>
__device__ void load_b(std::uint32_t (&b)[4], const bf16* from, int n, int k) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if constexpr (kRowsAlongDepth) {
    const int row = k + lane % 16, piece = n / kPiece + lane / 16;
    ptx::ldmatrix_x4_trans(b, from + place<true>(row, piece));
  } else {
    const int row = n + lane / 16 * 8 + lane % 8, piece = k / kPiece + lane / 8 % 2;
    ptx::ldmatrix_x4(b, from + place<false>(row, piece));
  }
}

constexpr int kFragmentsM = kWarpTile / 16, kFragmentsN = kWarpTile / 8;
using Sums = float[kFragmentsM][kFragmentsN][4];

__device__ inline int warp_row() {
  return static_cast<int>(threadIdx.x) / kWarp / 2 * kWarpTile;
}
__device__ inline int warp_col() {
  return static_cast<int>(threadIdx.x) / kWarp % 2 * kWarpTile;
}

template <bool kAAlongDepth, bool kBAlongDepth>
__device__ void multiply_stage(Sums& sums, const Stage& s) {
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    std::uint32_t a[kFragmentsM][4];
#pragma unroll
    for (int i = 0; i < kFragmentsM; ++i) load_a<kAAlongDepth>(a[i], s.a, warp_row() + i * 16, k);
#pragma unroll
    for (int j = 0; j < kFragmentsN; j += 2) {
      std::uint32_t both[4];
      load_b<kBAlongDepth>(both, s.b, warp_col() + j * 8, k);
      const std::uint32_t left[2] = {both[0], both[1]}, right[2] = {both[2], both[3]};
#pragma unroll
      for (int i = 0; i < kFragmentsM; ++i) {
        ptx::mma_m16n8k16(sums[i][j], a[i], left);
        ptx::mma_m16n8k16(sums[i][j + 1], a[i], right);
      }
    }
  }
}

__device__ inline void store_sums(float* to, const Sums& sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kFragmentsM; ++i) {
#pragma unroll
    for (int j = 0; j < kFragmentsN; ++j) {
      float* at =
          to + (warp_row() + i * 16 + lane / 4) * kStride + warp_col() + j * 8 + lane % 4 * 2;
      *reinterpret_cast<Few<float, 2>*>(at) = {{sums[i][j][0], sums[i][j][1]}};
      *reinterpret_cast<Few<float, 2>*>(at + 8 * kStride) = {{sums[i][j][2], sums[i][j][3]}};
    }
  }
}

template <Form kForm, class E>
__global__ void __launch_bounds__(kThreads, 2) matmul_kernel(Matmul<bf16, bf16> p, E e) {
  constexpr bool kAAlongDepth = kForm == Form::weight_gradient;
  constexpr bool kBAlongDepth = kForm != Form::forward;
  const Tile t = find_tile<kForm, kTile, kTile / E::kParts>(p);
  if (nothing_to_do(t, e)) return;
  GRIST_DYNAMIC_SHARED(Shared, s);
  p.b.data += t.expert * p.b_group;
  using Cols = Axis<kTile, E::kParts>;
  Copier<kAAlongDepth, Axis<kTile, 1>> a(p.a, {t.row_begin, t.row_end}, t.depth_begin, t.depth_end);
  Copier<kBAlongDepth, Cols> b(p.b, {t.col_begin, p.cols, p.cols}, t.depth_begin, t.depth_end);
  const int steps = tiles_of(t.depth_end - t.depth_begin, kDepth);
  const auto copy = [&](int step) {
    if (step < steps) {
      Stage& to = s.stages[step % kStages];
      a.copy(to.a, t.depth_begin + step * kDepth);
      b.copy(to.b, t.depth_begin + step * kDepth);
    }
    ptx::cp_async_commit();  // a group even where it is empty: waiting counts groups
  };
  for (int step = 0; step < kStages - 1; ++step) copy(step);
  Sums sums = {};
  for (int step = 0; step < steps; ++step) {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();  // the stage is there, and all are done with the one before it
    copy(step + kStages - 1);
    multiply_stage<kAAlongDepth, kBAlongDepth>(sums, s.stages[step % kStages]);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  store_sums(s.sums, sums);
  __syncthreads();
  finish_tile<kTile / E::kParts / kWarp, kTile, kStride>(e, t, p.cols, s.sums);
}

// 16-byte copies of whole pieces: rows start at multiples of 16 bytes, ends are multiples of 8.
template <Form kForm> bool fits(const Matmul<bf16, bf16>& p) {
  const auto aligned = [](const Rows<bf16>& x) {
    return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.stride % kPiece == 0;
  };
  const int inner = kForm == Form::weight_gradient ? p.rows : p.depth;
  return aligned(p.a) && aligned(p.b) && p.b_group % kPiece == 0 && p.cols % kPiece == 0 &&
         inner % kPiece == 0;
}

}  // namespace grist::cuda::mma
