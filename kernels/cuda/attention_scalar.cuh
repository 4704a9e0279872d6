#pragma once
// Tiles of the attention kernels without tensor cores: fp32 arithmetic, any head size up to 256.
//
// Launch    256 threads as 16 x 16; tiles of 32 queries and 32 keys. Thread (y, x) holds the scores
//           of rows y, y+16 and columns x, x+16, and of its block's rows y, y+16 the head's
//           elements x, x+16, ... as sums in registers. A row's threads are half a warp.
// Numerics  dot products are fused multiply-add chains in ascending index. A masked probability is
//           an exact 0, and so is what it adds.
#include <type_traits>

#include "attention.cuh"

namespace grist::cuda::attention::scalar {

constexpr int kSide = 16;
constexpr int kTile = 32;
constexpr int kThreads = kSide * kSide;
constexpr int kPerThread = kTile / kSide;  // rows of a thread; columns of a score tile too
constexpr float kInfinity = __builtin_huge_valf();

// 32 rows of one head, `width` elements, padded by one against bank conflicts.
template <int kParts> struct Tile { float row[kTile][kParts * kSide + 1]; };
struct ScoreTile {
  float row[kTile][kTile + 1];
};

__device__ inline int thread_x() {
  return static_cast<int>(threadIdx.x) % kSide;
}
__device__ inline int thread_y() {
  return static_cast<int>(threadIdx.x) / kSide;
}

// Rows below `rows` from x, `stride` elements apart; zeros elsewhere.
template <class T, int kParts>
__device__ void load_tile(Tile<kParts>& tile, const T* x, int stride, int rows, int Dh) {
  constexpr int kWidth = kParts * kSide;
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kWidth; i += kThreads) {
    const int r = i / kWidth, d = i % kWidth;
    tile.row[r][d] =
        r < rows && d < Dh ? to_float(x[static_cast<std::int64_t>(r) * stride + d]) : 0.0F;
  }
}

// out[r][c] = <a[y + 16r], b[x + 16c]>
template <int kParts>
__device__ void dot_rows(float (&out)[kPerThread][kPerThread], const Tile<kParts>& a,
                         const Tile<kParts>& b) {
  for (auto& row : out)
    for (float& value : row) value = 0.0F;
#pragma unroll 4
  for (int d = 0; d < kParts * kSide; ++d) {
#pragma unroll
    for (int r = 0; r < kPerThread; ++r) {
#pragma unroll
      for (int c = 0; c < kPerThread; ++c) {
        out[r][c] =
            fmaf(a.row[thread_y() + r * kSide][d], b.row[thread_x() + c * kSide][d], out[r][c]);
      }
    }
  }
}

// Sums of one thread: rows y + 16r, elements x + 16c.
template <int kParts> struct Sums { float v[kPerThread][kParts]; };

// sums[y + 16r] += sum over j of weight(y + 16r, j) * b[j]
template <int kParts, class Weight>
__device__ void add_products(Sums<kParts>& sums, const Tile<kParts>& b, Weight&& weight) {
#pragma unroll 2
  for (int j = 0; j < kTile; ++j) {
#pragma unroll
    for (int r = 0; r < kPerThread; ++r) {
      const float w = weight(thread_y() + r * kSide, j);
#pragma unroll
      for (int c = 0; c < kParts; ++c)
        sums.v[r][c] = fmaf(w, b.row[j][thread_x() + c * kSide], sums.v[r][c]);
    }
  }
}

template <class T, int kParts>
__device__ void store_sums(T* x, int stride, int rows, int Dh, const Sums<kParts>& sums) {
#pragma unroll
  for (int r = 0; r < kPerThread; ++r) {
    const int row = thread_y() + r * kSide;
#pragma unroll
    for (int c = 0; c < kParts; ++c) {
      const int d = thread_x() + c * kSide;
      if (row < rows && d < Dh)
        x[static_cast<std::int64_t>(row) * stride + d] = from_float<T>(sums.v[r][c]);
    }
  }
}

// Over the 16 threads of a row.
__device__ inline float row_max(float x) {
  for (int step = kSide / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}
__device__ inline float row_sum(float x) {
  for (int step = kSide / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

// Calls f with the number of 16-element parts that hold a head, as a constant.
template <class F> void for_parts(int Dh, F&& f) {
  if (Dh <= 16)
    f(std::integral_constant<int, 1>{});
  else if (Dh <= 32)
    f(std::integral_constant<int, 2>{});
  else if (Dh <= 64)
    f(std::integral_constant<int, 4>{});
  else if (Dh <= 128)
    f(std::integral_constant<int, 8>{});
  else
    f(std::integral_constant<int, 16>{});
}

}  // namespace grist::cuda::attention::scalar
