#pragma once
// dw[e] = sum over the rows r of expert e of dy[r]^T x[r]: one output tile is summed over all rows
// of its expert, 64 at a time. Both operands have their rows along the depth: lines of 64 elements
// along the output's rows (dy) and columns (x).
//
// Shapes    dy (R, O), x (R, I), or (N, ...) with row numbers; dw (E, O, I) f32.
// Launch    as many blocks as multiprocessors; each takes tiles of 128 x 256, t, t + blocks, ...
// Numerics  fp32 sums over rows in ascending order; then stored, or added to dw.
// Traffic   dy once for each 256 columns, x once for each 128 rows of dw; dw written once (and read
//           where it is added to).
// See       kernels/cuda/sm90/pipeline.cuh, test tests/cuda/sm90_experts_test.cpp.
#include "pipeline.cuh"
#include "tensor_map.h"

namespace grist::cuda::sm90 {

using WeightMemory = TileMemory<256, 4, 0>;

// dy or x. `rows`: of all experts; chosen by `token` where that is given.
struct WeightOperand {
  CUtensorMap map;  // (rows, width) in boxes of 64 rows, where they are not chosen
  const bf16* data;
  const int* token;
  int width;
};

struct WeightMatmul {
  WeightOperand dy, x;
  float* dw;
  const int* expert_offsets;  // null: one expert has all rows
  int experts, rows;
  bool accumulate;
};

struct WeightTile {
  int expert, row, column;  // first row and column in dw[expert]
  int begin, end;           // rows of the expert
};
__device__ inline int weight_tiles(int width, int tile) {
  return (width + tile - 1) / tile;
}
// Tile t, or false when there are no more. Columns of tiles come one after the other, so that
// blocks that run together share x.
__device__ inline bool weight_tile(WeightTile& tile, const WeightMatmul& p, int t) {
  const int tall = weight_tiles(p.dy.width, kTileRows);
  const int wide = weight_tiles(p.x.width, WeightMemory::kWidth);
  tile.expert = t / (tall * wide);
  if (tile.expert >= p.experts) return false;
  const int i = t % (tall * wide);
  tile.row = i % tall * kTileRows;
  tile.column = i / tall * WeightMemory::kWidth;
  tile.begin = p.expert_offsets == nullptr ? 0 : p.expert_offsets[tile.expert];
  tile.end = p.expert_offsets == nullptr ? p.rows : p.expert_offsets[tile.expert + 1];
  return true;
}

// A thread's four rows of the 64 that begin at `row`, as sources of copy_lines().
template <bool kChosen>
__device__ inline void rows_from(const bf16* (&lines)[4], const WeightOperand& o, int row,
                                 int end) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int r = row + thread / 8 + 16 * i;
    lines[i] = nullptr;
    if (r < end) {
      const std::int64_t source = kChosen ? o.token[r] : r;
      lines[i] = o.data + source * o.width + thread % 8 * 8;
    }
  }
}

// One operand of a stage, kBoxes boxes of 64 columns. The last rows of an expert are copied by
// threads even where the TMA could: the rows behind them must count as zeros.
template <int kBoxes>
__device__ inline void copy_operand(unsigned char* boxes, const WeightOperand& o,
                                    const bf16* const (&lines)[4], int column) {
#pragma unroll
  for (int b = 0; b < kBoxes; ++b) {
    const int first = column + 64 * b;
    const bool inside = first + static_cast<int>(threadIdx.x) % 8 * 8 < o.width;
    copy_lines<64>(boxes + b * kBoxBytes, lines, first, inside);
  }
}
template <int kBoxes>
__device__ inline void load_operand(unsigned char* boxes, const WeightOperand& o,
                                    ptx::Barrier* full, int column, int row) {
#pragma unroll
  for (int b = 0; b < kBoxes; ++b)
    ptx::tma_load_2d(boxes + b * kBoxBytes, &o.map, full, column + 64 * b, row);
}

template <bool kChosenDy, bool kChosenX>
__device__ inline void load_weight_tile(const WeightMatmul& p, WeightMemory& m,
                                        const WeightTile& tile, Position<WeightMemory::kStages>& at,
                                        LateArrival<WeightMemory>& late) {
  constexpr int kBoxesA = kTileRows / 64, kBoxesB = WeightMemory::kWidth / 64;
  constexpr int kBytes =
      (kChosenDy ? 0 : WeightMemory::kBytesA) + (kChosenX ? 0 : WeightMemory::kBytesB);
  for (int row = tile.begin; row < tile.end; row += kDepth) {
    const bool whole = row + kDepth <= tile.end;
    const bf16 *dy[4], *x[4];
    if (kChosenDy || !whole) rows_from<kChosenDy>(dy, p.dy, row, tile.end);
    if (kChosenX || !whole) rows_from<kChosenX>(x, p.x, row, tile.end);
    ptx::Barrier* full = &m.full[at.stage];
    ptx::barrier_wait(&m.empty[at.stage], at.parity ^ 1U);
    if (threadIdx.x == 0) {
      ptx::barrier_arrive_expect(full, whole ? kBytes : 0);
      if (!kChosenDy && whole) load_operand<kBoxesA>(m.a[at.stage], p.dy, full, tile.row, row);
      if (!kChosenX && whole) load_operand<kBoxesB>(m.b[at.stage], p.x, full, tile.column, row);
    }
    if (kChosenDy || !whole) copy_operand<kBoxesA>(m.a[at.stage], p.dy, dy, tile.row);
    if (kChosenX || !whole) copy_operand<kBoxesB>(m.b[at.stage], p.x, x, tile.column);
    late.next_stage();
    at.advance();
  }
}

// A thread's sums to dw, in pairs: four threads write 32 bytes.
__device__ inline void store_weight_tile(const WeightMatmul& p, const WeightTile& tile,
                                         int warpgroup, const float (&acc)[128]) {
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup;
  const int first = tile.row + warpgroup * 64 + t / kWarp * 16 + t % kWarp / 4;
  float* dw = p.dw + static_cast<std::int64_t>(tile.expert) * p.dy.width * p.x.width;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = first + 8 * h;
    if (row >= p.dy.width) break;
    float* line = dw + static_cast<std::int64_t>(row) * p.x.width;
#pragma unroll
    for (int j = 0; j < 32; ++j) {
      const int column = tile.column + 8 * j + t % 4 * 2;
      if (column >= p.x.width) break;
      float2 v = {acc[4 * j + 2 * h], acc[4 * j + 2 * h + 1]};
      auto* to = reinterpret_cast<float2*>(line + column);
      if (p.accumulate) v = {to->x + v.x, to->y + v.y};
      *to = v;
    }
  }
}

__device__ inline void multiply_weight_tiles(const WeightMatmul& p, WeightMemory& m,
                                             int warpgroup) {
  Position<WeightMemory::kStages> at;
  float acc[WeightMemory::kWidth / 2] = {};
  WeightTile tile;
  for (int t = static_cast<int>(blockIdx.x); weight_tile(tile, p, t);
       t += static_cast<int>(gridDim.x)) {
    const int depths = (tile.end - tile.begin + kDepth - 1) / kDepth;
    if (depths == 0 && p.accumulate) continue;
    if (depths == 0) {
#pragma unroll
      for (float& sum : acc) sum = 0;
    }
    multiply<true, true>(acc, m, warpgroup * kBoxBytes, at, depths);
    store_weight_tile(p, tile, warpgroup, acc);
  }
}

template <bool kChosenDy, bool kChosenX>
__global__ void __launch_bounds__(kBlockThreads, 1)
    weight_matmul_kernel(const __grid_constant__ WeightMatmul p) {
  GRIST_DYNAMIC_SHARED(WeightMemory, m);
  start_pipeline(m, 1 + LateArrival<WeightMemory>::kWriters);
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup > 0) {
    ptx::registers_take<224>();
    multiply_weight_tiles(p, m, warpgroup - 1);
    return;
  }
  ptx::registers_release<56>();
  Position<WeightMemory::kStages> at;
  LateArrival late(m);
  WeightTile tile;
  for (int t = static_cast<int>(blockIdx.x); weight_tile(tile, p, t);
       t += static_cast<int>(gridDim.x))
    load_weight_tile<kChosenDy, kChosenX>(p, m, tile, at, late);
  late.finish();
}

}  // namespace grist::cuda::sm90
