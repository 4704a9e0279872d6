#pragma once
// What becomes of a tile's sums. A multiplying warpgroup holds 64 rows of them; each epilogue is a
// type with the tile's width, its operands, what may be loaded while the products are still
// running (begin), and what is stored (finish). Rows past the block's end are never written.
#include "kernels/cuda/sigmoid.cuh"
#include "pipeline.cuh"
#include "row_blocks.cuh"

namespace grist::cuda::sm90 {

constexpr int kChunk = 64;  // columns that are stored at a time

// One warpgroup's part of a tile.
struct Part {
  std::int64_t row;  // of the operation
  int rows;          // that exist, of 64; may be 0
  int column;        // first column, counted in tiles
  int warpgroup;     // 0 or 1
};

// Position of a thread's sums: rows row() and row() + 8 of the warpgroup, columns column() and
// column() + 1 of each group of 8.
__device__ inline int fragment_row() {
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup;
  return t / kWarp * 16 + t % kWarp / 4;
}
__device__ inline int fragment_column() {
  return static_cast<int>(threadIdx.x) % 4 * 2;
}

__device__ inline std::uint32_t pack(float first, float second) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
  return static_cast<std::uint32_t>(__bfloat16_as_ushort(both.x)) |
         static_cast<std::uint32_t>(__bfloat16_as_ushort(both.y)) << 16;
}
__device__ inline float2 unpack(std::uint32_t both) {
  return {__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000U)};
}

// A warpgroup's way from sums to rows in memory, 64 columns at a time: through one of two boxes in
// shared memory, so that rows are written in whole 128-byte lines.
class ChunkWriter {
 public:
  static constexpr int kBytes = 2 * kBoxBytes;  // of shared memory
  __device__ ChunkWriter(unsigned char* boxes, int warpgroup)
      : boxes_(boxes), barrier_(1 + warpgroup) {}
  // All threads of the warpgroup wait for each other.
  __device__ void meet() const { ptx::named_barrier_sync(barrier_, kWarpgroup); }
  // v[2 j + h]: the thread's pair in column group j, row half h. `to`: the first row's first
  // element; rows lie `stride` elements apart; `columns` of the 64 exist.
  __device__ void write(const std::uint32_t (&v)[16], bf16* to, std::int64_t stride, int rows,
                        int columns) {
    unsigned char* box = boxes_ + turn_ * kBoxBytes;
    turn_ ^= 1;  // the other box may still be read by slower threads
    fill(box, v);
    meet();
    const int t = static_cast<int>(threadIdx.x) % kWarpgroup, chunk = t % 8;
    if (chunk * 8 >= columns) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = t / 8 + 16 * i;
      if (row >= rows) break;
      const auto bytes =
          *reinterpret_cast<const uint4*>(box + row * kLineBytes + ((chunk ^ (row % 8)) * 16));
      *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) = bytes;
    }
  }

 private:
  __device__ static void fill(unsigned char* box, const std::uint32_t (&v)[16]) {
    const int t = static_cast<int>(threadIdx.x) % kWarpgroup, lane = t % kWarp;
    const int matrix = lane / 8, row = t / kWarp * 16 + matrix % 2 * 8 + lane % 8;
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      const int chunk = (j + matrix / 2) ^ (lane % 8);
      const std::uint32_t four[4] = {v[2 * j], v[2 * j + 1], v[2 * j + 2], v[2 * j + 3]};
      ptx::stmatrix_x4(box + row * kLineBytes + chunk * 16, four);
    }
  }
  unsigned char* boxes_;
  int barrier_;
  int turn_ = 0;
};

// The chunk's sums, which begin at acc[kFirst], as bf16.
template <int kFirst, int kSize>
__device__ inline void pack_chunk(std::uint32_t (&v)[16], const float (&acc)[kSize]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) v[i] = pack(acc[kFirst + 2 * i], acc[kFirst + 2 * i + 1]);
}

// Calls f(std::integral_constant<int, 0>{}), 1, ... kCount - 1: indices of registers are constants.
template <int kCount, class F> __device__ inline void for_constants(F&& f) {
  if constexpr (kCount > 0) {
    for_constants<kCount - 1>(f);
    f(std::integral_constant<int, kCount - 1>{});
  }
}

// ---- y = sums -----------------------------------------------------------------------------------

struct Store {
  static constexpr int kWidth = 256, kOutputs = 256;  // columns of the tile; of the output
  static constexpr int kStages = 4, kScratch = 0;     // bytes a warpgroup besides the writer's
  struct Operands {
    bf16* y;
    int width;
  };
  __device__ static void begin(const Operands&, const Part&, unsigned char*) {}
  __device__ static void finish(const Operands& o, const Part& p, ChunkWriter& writer,
                                unsigned char*, float (&acc)[kWidth / 2]) {
    for_constants<kWidth / kChunk>([&](auto c) {
      const int column = p.column * kOutputs + c * kChunk;
      if (column >= o.width) return;
      std::uint32_t v[16];
      pack_chunk<c * 32>(v, acc);
      writer.write(v, o.y + p.row * o.width + column, o.width, p.rows, o.width - column);
    });
  }
};

// ---- z = (gate, up) = sums;  a = silu(gate) up --------------------------------------------------

// The tile's first half are gate columns, the second the up columns of the same outputs.
struct Swiglu {
  static constexpr int kWidth = 256, kOutputs = 128;
  static constexpr int kStages = 4, kScratch = 0;
  struct Operands {
    bf16 *z, *a;
    int width;  // F
  };
  __device__ static void begin(const Operands&, const Part&, unsigned char*) {}
  __device__ static void finish(const Operands& o, const Part& p, ChunkWriter& writer,
                                unsigned char*, float (&acc)[kWidth / 2]) {
    for_constants<kOutputs / kChunk>([&](auto c) {
      const int column = p.column * kOutputs + c * kChunk, columns = o.width - column;
      if (columns <= 0) return;
      std::uint32_t gate[16], up[16];
      pack_chunk<c * 32>(gate, acc);
      pack_chunk<kWidth / 4 + c * 32>(up, acc);
      bf16* z = o.z + p.row * 2 * o.width + column;
      writer.write(gate, z, 2 * o.width, p.rows, columns);
      writer.write(up, z + o.width, 2 * o.width, p.rows, columns);
#pragma unroll
      for (int i = 0; i < 16; ++i) {  // from the rounded z, as backward does it again
        const float2 g = unpack(gate[i]), u = unpack(up[i]);
        gate[i] = pack(silu<bf16>(g.x).value * u.x, silu<bf16>(g.y).value * u.y);
      }
      writer.write(gate, o.a + p.row * o.width + column, o.width, p.rows, columns);
    });
  }
};

}  // namespace grist::cuda::sm90
