#pragma once
// What the Hopper attention kernels share: rows of one head as operands of wgmma, and the products.
// A thread block has three warpgroups: one warp of the first brings tiles into rings in shared
// memory, the other two multiply, each with 64 rows of its own.
//
// A tile's rows are rows of one document. The TMA brings 64 elements of many rows at a time, and
// where a document ends, the rows of the next one too; where those would be multiplied by a zero
// (which makes NaN of NaN) the last tile is copied by the producer's threads, with zeros instead.
#include "attention.h"
#include "epilogue.cuh"
#include "kernels/cuda/attention_softmax.cuh"
#include "pipeline.cuh"

namespace grist::cuda::attention::hopper {

using sm90::kBlockThreads;
using sm90::kLineBytes;
using sm90::kWarpgroup;
using sm90::Position;

constexpr int kWarpgroupRows = 64;
constexpr int kBlockRows = sm90::kMultipliers * kWarpgroupRows;
constexpr int kStages = 2;
constexpr int kSlice = 64;    // elements of a line
constexpr int kBoxRows = 64;  // that the TMA brings at a time
constexpr int kProducerRegisters = 40, kMultiplierRegisters = 232;

// Slices of 64 elements of all rows, each swizzled by 128 bytes.
template <int kRows_, int kHead_> struct alignas(1024) Tile {
  static constexpr int kRows = kRows_, kHead = kHead_, kSliceBytes = kRows * kLineBytes;
  unsigned char slices[kHead / kSlice][kSliceBytes];
};
// Tiles (or what holds some) on their way from the producer to the multipliers.
template <class Tile> struct Ring {
  static constexpr int kStages = hopper::kStages;
  Tile tiles[kStages];
  ptx::Barrier full[kStages], empty[kStages];
};

__device__ inline bool is_producer() {
  return threadIdx.x < kWarpgroup;
}
// Of a multiplying thread: its warpgroup, and its warp's first row of that warpgroup's.
__device__ inline int warpgroup() {
  return static_cast<int>(threadIdx.x) / kWarpgroup - 1;
}
__device__ inline int warp_row() {
  return static_cast<int>(threadIdx.x) % kWarpgroup / kWarp * 16;
}

// ---- the producer -------------------------------------------------------------------------------

// A tensor (rows, heads, kHead) as the producer sees it.
struct Source {
  const CUtensorMap* map;
  const bf16* x;
  int heads;
};

template <class Ring>
__device__ inline auto& wait_for_room(Ring& ring, const Position<kStages>& at) {
  ptx::barrier_wait(&ring.empty[at.stage], at.parity ^ 1U);
  return ring.tiles[at.stage];
}

// By one thread; sizeof(Tile) bytes will come. The map's boxes are 64 rows high.
template <class Tile>
__device__ inline void start_load(Tile& tile, const CUtensorMap* map, ptx::Barrier* full, int head,
                                  std::int64_t row) {
#pragma unroll
  for (int c = 0; c < Tile::kHead / kSlice; ++c) {
#pragma unroll
    for (int r = 0; r < Tile::kRows; r += kBoxRows)
      ptx::tma_load_2d(tile.slices[c] + r * kLineBytes, map, full, head * Tile::kHead + c * kSlice,
                       static_cast<int>(row) + r);
  }
}

// By a warp: `rows` rows, and zeros. Returns when wgmma sees them.
template <class Tile>
__device__ inline void copy_last(Tile& tile, const Source& from, int head, std::int64_t row,
                                 int rows) {
  const int stride = from.heads * Tile::kHead, chunk = lane_index() % 8;
  const bf16* first = from.x + row * stride + head * Tile::kHead + chunk * 8;
  for (int r = lane_index() / 8; r < Tile::kRows; r += kWarp / 8) {
    const bf16* line = first + static_cast<std::int64_t>(r) * stride;
    unsigned char* to = tile.slices[0] + r * kLineBytes + (chunk ^ r % 8) * 16;
#pragma unroll
    for (int c = 0; c < Tile::kHead / kSlice; ++c)
      ptx::cp_async_16(to + c * Tile::kSliceBytes, line + c * kSlice, r < rows);
  }
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  ptx::fence_async_proxy();
  __syncwarp();
}

// By a warp: brings the tile of `head` from `row` on, of which `rows` belong to the document.
template <class Ring>
__device__ inline void produce(Ring& ring, const Position<kStages>& at, const Source& from,
                               int head, std::int64_t row, int rows) {
  auto& tile = wait_for_room(ring, at);
  ptx::Barrier* full = &ring.full[at.stage];
  if (rows < tile.kRows) {
    copy_last(tile, from, head, row, rows);
    if (lane_index() == 0) ptx::barrier_arrive(full);
  } else if (lane_index() == 0) {
    ptx::barrier_arrive_expect(full, sizeof tile);
    start_load(tile, from.map, full, head, row);
  }
}

// ---- the warpgroups that multiply ---------------------------------------------------------------

template <class Ring> __device__ inline auto& wait_for(Ring& ring, const Position<kStages>& at) {
  ptx::barrier_wait(&ring.full[at.stage], at.parity);
  return ring.tiles[at.stage];
}
// The warp has used the tile.
template <class Ring> __device__ inline void release(Ring& ring, Position<kStages>& at) {
  __syncwarp();
  if (lane_index() == 0) ptx::barrier_arrive(&ring.empty[at.stage]);
  at.advance();
}

// A warp's sums as wgmma numbers them.
template <int kColumns> __device__ inline float (&flat(Sums<1, kColumns>& s))[kColumns / 2] {
  return reinterpret_cast<float(&)[kColumns / 2]>(s.v);
}
template <int kColumns> __device__ inline void keep(Sums<1, kColumns>& s) {
  ptx::keep_in_registers(flat(s));
}

// Starts s = a b^T: rows of both are heads.
template <int kColumns, int kHead>
__device__ inline void start_dot_rows(Sums<1, kColumns>& s, const Tile<kWarpgroupRows, kHead>& a,
                                      const Tile<kColumns, kHead>& b) {
  const auto left = ptx::swizzled_matrix(a.slices, 8 * kLineBytes, 0);
  const auto right = ptx::swizzled_matrix(b.slices, 8 * kLineBytes, 0);
#pragma unroll
  for (int d = 0; d < kHead; d += 16) {
    const int slice = d / kSlice, inside = d % kSlice * 2;
    ptx::wgmma<kColumns, 0, 0>(flat(s), sm90::moved(left, slice * a.kSliceBytes + inside),
                               sm90::moved(right, slice * b.kSliceBytes + inside), d > 0);
  }
}

// Probabilities or their gradients, rounded: the left operand of a product over their columns.
template <int kColumns> struct Left {
  std::uint32_t v[kColumns / 16][4];

  __device__ void round(const Sums<1, kColumns>& s) {
#pragma unroll
    for (int k = 0; k < kColumns / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* pair = &s.v[0][2 * k + i / 2][i % 2 * 2];
        v[k][i] = pack(pair[0], pair[1]);
      }
    }
  }
};

// Starts out += w b.
template <int kColumns, int kHead>
__device__ inline void start_add_weighted(Sums<1, kHead>& out, const Left<kColumns>& w,
                                          const Tile<kColumns, kHead>& b) {
  const auto right = ptx::swizzled_matrix(b.slices, 8 * kLineBytes, b.kSliceBytes);
#pragma unroll
  for (int k = 0; k < kColumns / 16; ++k) {
    ptx::wgmma_registers<kHead, 1>(flat(out), w.v[k], sm90::moved(right, k * 16 * kLineBytes),
                                   true);
  }
}

// Writes a warpgroup's sums to rows below `rows` (at most 64) of x, `stride` elements apart,
// through a tile that no other warpgroup uses any more.
template <int kHead>
__device__ inline void store_sums(bf16* x, int stride, int rows, Tile<kWarpgroupRows, kHead>& tile,
                                  int warpgroup, Sums<1, kHead>& sums) {
  sm90::ChunkWriter writer(tile.slices[0], warpgroup);
  writer.meet();
  sm90::for_constants<kHead / kSlice>([&](auto c) {
    std::uint32_t v[16];
    sm90::pack_chunk<c * 32>(v, flat(sums));
    writer.write(v, x + c * kSlice, stride, rows, kSlice);
  });
}

// ---- on the host --------------------------------------------------------------------------------

// A map of a tensor (rows, heads, Dh).
inline CUtensorMap map_of(const ConstTensorView& x) {
  return sm90::swizzled_map(x.data, {x.shape[0], x.shape[1] * x.shape[2]}, kBoxRows);
}
// Calls f with the head size as a constant.
template <class F> void for_head(int Dh, F&& f) {
  if (Dh == 64)
    f(std::integral_constant<int, 64>{});
  else
    f(std::integral_constant<int, 128>{});
}

}  // namespace grist::cuda::attention::hopper
