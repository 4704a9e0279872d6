#pragma once
// The epilogue of the backward pass through the down projection and SwiGLU: from sums h = dy W2 and
// the kept z, with the row's weight s:
//   da = s h;  dz = (da up silu'(gate), da silu(gate));  weighted_a = s a;  drow_weight = <h, a>
#include "epilogue.cuh"

namespace grist::cuda::sm90 {

struct SwigluBackward {
  static constexpr int kWidth = 128, kOutputs = 128;
  static constexpr int kStages = 4;
  static constexpr int kBoxes = kOutputs / kChunk;         // of gate; as many of up behind them
  static constexpr int kScratch = 2 * kBoxes * kBoxBytes;  // z of the tile
  struct Operands {
    bf16 *dz, *weighted_a;
    float* row_sums;  // (column tiles, all rows): this tile's share of drow_weight
    const bf16* z;
    const float* row_weight;
    int width;  // F
    std::int64_t all_rows;
  };

  // z comes while the products run.
  __device__ static void begin(const Operands& o, const Part& p, unsigned char* boxes) {
    const int t = static_cast<int>(threadIdx.x) % kWarpgroup;
    const bf16* lines[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = t / 8 + 16 * i;
      lines[i] = row < p.rows ? o.z + (p.row + row) * 2 * o.width + t % 8 * 8 : nullptr;
    }
#pragma unroll
    for (int b = 0; b < kBoxes; ++b) {
      const int column = p.column * kOutputs + b * kChunk;
      const bool inside = column + t % 8 * 8 < o.width;
      copy_lines<64>(boxes + b * kBoxBytes, lines, column, inside);
      copy_lines<64>(boxes + (kBoxes + b) * kBoxBytes, lines, o.width + column, inside);
    }
    ptx::cp_async_commit();
  }

  __device__ static void finish(const Operands& o, const Part& p, ChunkWriter& writer,
                                unsigned char* boxes, float (&acc)[kWidth / 2]) {
    ptx::cp_async_wait<0>();
    writer.meet();
    float weight[2], sums[2] = {};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = fragment_row() + 8 * h;
      weight[h] = row < p.rows ? o.row_weight[p.row + row] : 0.0F;
    }
    for_constants<kBoxes>([&](auto c) {
      const int column = p.column * kOutputs + c * kChunk, columns = o.width - column;
      if (columns <= 0) return;
      std::uint32_t gate[16], up[16], a[16];
      read_box(gate, boxes + c * kBoxBytes);
      read_box(up, boxes + (kBoxes + c) * kBoxBytes);
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float h[2] = {acc[c * 32 + 2 * i], acc[c * 32 + 2 * i + 1]};
        differentiate(gate[i], up[i], a[i], h, weight[i % 2], sums[i % 2]);
      }
      bf16* dz = o.dz + p.row * 2 * o.width + column;
      writer.write(gate, dz, 2 * o.width, p.rows, columns);
      writer.write(up, dz + o.width, 2 * o.width, p.rows, columns);
      writer.write(a, o.weighted_a + p.row * o.width + column, o.width, p.rows, columns);
    });
    add_rows(o, p, sums);
  }

 private:
  // The thread's pairs of a box, in the order of ChunkWriter::write().
  __device__ static void read_box(std::uint32_t (&v)[16], const unsigned char* box) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const int row = fragment_row() + 8 * (i % 2), chunk = i / 2 ^ (row % 8);
      v[i] = *reinterpret_cast<const std::uint32_t*>(box + row * kLineBytes + chunk * 16 +
                                                     fragment_column() * 2);
    }
  }

  // Two neighbours of one row: (gate, up) becomes their gradient.
  __device__ static void differentiate(std::uint32_t& gate, std::uint32_t& up, std::uint32_t& a,
                                       const float (&h)[2], float s, float& sum) {
    const float2 gates = unpack(gate), ups = unpack(up);
    const float g[2] = {gates.x, gates.y}, u[2] = {ups.x, ups.y};
    float dg[2], du[2], sa[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const Silu gate_i = silu<bf16>(g[i]);
      const float act = gate_i.value * u[i], da = s * h[i];
      dg[i] = da * u[i] * gate_i.slope;
      du[i] = da * gate_i.value;
      sa[i] = s * act;
      sum += h[i] * act;
    }
    gate = pack(dg[0], dg[1]);
    up = pack(du[0], du[1]);
    a = pack(sa[0], sa[1]);
  }

  // Four threads hold a row's sums.
  __device__ static void add_rows(const Operands& o, const Part& p, float (&sums)[2]) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sums[h] += __shfl_xor_sync(kAllLanes, sums[h], 1);
      sums[h] += __shfl_xor_sync(kAllLanes, sums[h], 2);
      const int row = fragment_row() + 8 * h;
      if (threadIdx.x % 4 == 0 && row < p.rows)
        o.row_sums[p.column * o.all_rows + p.row + row] = sums[h];
    }
  }
};

}  // namespace grist::cuda::sm90
