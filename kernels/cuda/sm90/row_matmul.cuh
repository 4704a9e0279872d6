#pragma once
// out[rows of e] = epilogue(x[rows of e] W[e]) for all experts e: the four matmuls whose output has
// a row for each row of an expert.
//
// Shapes    x (R, depth), or (N, depth) with row_token; W one of Weights; outputs as the epilogue
//           says.
// Launch    as many blocks as multiprocessors; each takes tiles t, t + blocks, ... (row_blocks.cuh)
// Numerics  fp32 sums in ascending depth, in the order of wgmma; a row's result depends on nothing
//           but that row and W, whatever the grid.
// Traffic   x once a column tile, W[e] once a block of 128 rows; eight row blocks share a column
//           while it is in L2.
// See       kernels/cuda/sm90/pipeline.cuh, test tests/cuda/sm90_experts_test.cpp.
#include "epilogue.cuh"
#include "tensor_map.h"

namespace grist::cuda::sm90 {

// How the weights of an expert lie, as a 3-dimensional tensor.
enum class Weights {
  rows,   // (E, outputs, depth): a line runs along the depth
  pairs,  // (2 E, outputs, depth): gate and up rows; a tile takes the same rows of both
  lines,  // (E, depth, outputs): a line runs along the outputs
};

template <class Epilogue> struct RowMatmul {
  CUtensorMap x_map;     // (R, depth), where rows are not gathered
  CUtensorMap w_map;     // boxes of weight_box() rows
  const bf16* x;         // (N, depth), where they are
  const int* row_token;  // (R)
  RowBlockList list;
  int depth, columns;  // columns: tiles that the outputs are wide
  typename Epilogue::Operands out;
};

template <class Epilogue>
using RowMemory = TileMemory<Epilogue::kWidth, Epilogue::kStages,
                             kMultipliers*(ChunkWriter::kBytes + Epilogue::kScratch)>;

template <class Epilogue> constexpr int weight_box(Weights w) {
  return w == Weights::lines ? kDepth : Epilogue::kOutputs;
}

// One thread: the weights (and rows, if `rows` is true) of a stage. Arrives at its barrier.
template <Weights kWeights, bool kRows, class Epilogue, class Memory>
__device__ inline void load_stage(const RowMatmul<Epilogue>& p, Memory& m, int stage,
                                  const RowTile& tile, int depth) {
  ptx::Barrier* full = &m.full[stage];
  unsigned char* b = m.b[stage];
  const int output = tile.column * Epilogue::kOutputs, e = tile.block.expert;
  ptx::barrier_arrive_expect(full, Memory::kBytesB + (kRows ? Memory::kBytesA : 0));
  if constexpr (kRows) ptx::tma_load_2d(m.a[stage], &p.x_map, full, depth, tile.block.row);
  if constexpr (kWeights == Weights::rows) {
    ptx::tma_load_3d(b, &p.w_map, full, depth, output, e);
  } else if constexpr (kWeights == Weights::pairs) {
    ptx::tma_load_3d(b, &p.w_map, full, depth, output, 2 * e);
    ptx::tma_load_3d(b + Memory::kBytesB / 2, &p.w_map, full, depth, output, 2 * e + 1);
  } else {
#pragma unroll
    for (int i = 0; i < Memory::kWidth / 64; ++i)
      ptx::tma_load_3d(b + i * kBoxBytes, &p.w_map, full, output + 64 * i, depth, e);
  }
}

template <Weights kWeights, class Epilogue>
__device__ inline void load_tiles(const RowMatmul<Epilogue>& p, RowMemory<Epilogue>& m) {
  Position<Epilogue::kStages> at;
  const int count = *p.list.count;
  for (int t = static_cast<int>(blockIdx.x); t < count * p.columns;
       t += static_cast<int>(gridDim.x)) {
    const RowTile tile = row_tile(p.list, count, p.columns, t);
    for (int depth = 0; depth < p.depth; depth += kDepth) {
      ptx::barrier_wait(&m.empty[at.stage], at.parity ^ 1U);
      load_stage<kWeights, true>(p, m, at.stage, tile, depth);
      at.advance();
    }
  }
}

// As load_tiles(), where rows are chosen by row_token; by the whole warpgroup.
template <Weights kWeights, class Epilogue>
__device__ inline void gather_tiles(const RowMatmul<Epilogue>& p, RowMemory<Epilogue>& m) {
  Position<Epilogue::kStages> at;
  LateArrival late(m);
  const int thread = static_cast<int>(threadIdx.x), count = *p.list.count;
  for (int t = static_cast<int>(blockIdx.x); t < count * p.columns;
       t += static_cast<int>(gridDim.x)) {
    const RowTile tile = row_tile(p.list, count, p.columns, t);
    const bf16* lines[kTileRows / 16];
#pragma unroll
    for (int i = 0; i < kTileRows / 16; ++i) {
      const int row = thread / 8 + 16 * i;
      lines[i] = nullptr;
      if (row < tile.block.rows) {
        const std::int64_t token = p.row_token[tile.block.row + row];
        lines[i] = p.x + token * p.depth + thread % 8 * 8;
      }
    }
    for (int depth = 0; depth < p.depth; depth += kDepth) {
      ptx::barrier_wait(&m.empty[at.stage], at.parity ^ 1U);
      if (thread == 0) load_stage<kWeights, false>(p, m, at.stage, tile, depth);
      copy_lines<kTileRows>(m.a[at.stage], lines, depth, depth + thread % 8 * 8 < p.depth);
      late.next_stage();
      at.advance();
    }
  }
  late.finish();
}

template <Weights kWeights, class Epilogue>
__device__ inline void multiply_tiles(const RowMatmul<Epilogue>& p, RowMemory<Epilogue>& m,
                                      int warpgroup) {
  constexpr int kRows = kTileRows / kMultipliers;
  unsigned char* mine = m.extra + warpgroup * (ChunkWriter::kBytes + Epilogue::kScratch);
  ChunkWriter writer(mine, warpgroup);
  unsigned char* scratch = mine + ChunkWriter::kBytes;
  Position<Epilogue::kStages> at;
  const int depths = (p.depth + kDepth - 1) / kDepth, count = *p.list.count;
  const int tiles = count * p.columns, step = static_cast<int>(gridDim.x);
  float acc[Epilogue::kWidth / 2] = {};
  RowTile next = {};
  if (static_cast<int>(blockIdx.x) < tiles)
    next = row_tile(p.list, count, p.columns, static_cast<int>(blockIdx.x));
  for (int t = static_cast<int>(blockIdx.x); t < tiles; t += step) {
    const RowTile tile = next;
    if (t + step < tiles) next = row_tile(p.list, count, p.columns, t + step);  // comes meanwhile
    const int skipped = warpgroup * kRows;
    const Part part = {tile.block.row + skipped, max(0, min(kRows, tile.block.rows - skipped)),
                       tile.column, warpgroup};
    Epilogue::begin(p.out, part, scratch);
    multiply<false, kWeights == Weights::lines>(acc, m, skipped * kLineBytes, at, depths);
    Epilogue::finish(p.out, part, writer, scratch, acc);
  }
}

template <class Epilogue, Weights kWeights, bool kGather>
__global__ void __launch_bounds__(kBlockThreads, 1)
    row_matmul_kernel(const __grid_constant__ RowMatmul<Epilogue> p) {
  using Memory = RowMemory<Epilogue>;
  GRIST_DYNAMIC_SHARED(Memory, m);
  start_pipeline(m, 1 + (kGather ? LateArrival<Memory>::kWriters : 0));
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup > 0) {
    ptx::registers_take<kGather ? 224 : 232>();
    multiply_tiles<kWeights>(p, m, warpgroup - 1);
  } else {
    ptx::registers_release<kGather ? 56 : 40>();
    if constexpr (kGather)
      gather_tiles<kWeights>(p, m);
    else if (threadIdx.x == 0)
      load_tiles<kWeights>(p, m);
  }
}

}  // namespace grist::cuda::sm90
