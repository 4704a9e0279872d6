#pragma once
// Softmax on the accumulators of tensor cores, where scores never leave registers.
//
// A warp's lane holds of a 16 x 8 accumulator rows g and g+8, columns 2t and 2t+1, with g = lane/4,
// t = lane%4. So it is after mma.sync, and for each warp of a warpgroup's 64 rows after wgmma.
#include "attention.cuh"

namespace grist::cuda::attention {

constexpr float kInfinity = __builtin_huge_valf();
constexpr float kLog2e = 1.44269504088896340736F;

__device__ inline int lane_index() {
  return static_cast<int>(threadIdx.x) % kWarp;
}
// The lane's row g and first column 2t in an accumulator.
__device__ inline int lane_row() {
  return lane_index() / 4;
}
__device__ inline int lane_column() {
  return lane_index() % 4 * 2;
}

__device__ inline std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// kTiles times 16 rows, kColumns columns of one warp.
template <int kTiles, int kColumns> struct Sums {
  float v[kTiles][kColumns / 8][4];

  __device__ void clear() {
#pragma unroll
    for (auto& tile : v)
#pragma unroll
      for (auto& part : tile)
#pragma unroll
        for (float& value : part) value = 0.0F;
  }
  __device__ void scale(float factor) {
#pragma unroll
    for (auto& tile : v)
#pragma unroll
      for (auto& part : tile)
#pragma unroll
        for (float& value : part) value *= factor;
  }
};

// The rows of one lane: tile m, row g + 8 half.
template <int kTiles> struct RunningRows {
  float max[kTiles][2];  // the same in the four lanes of a row
  float sum[kTiles][2];  // over the lane's own columns

  __device__ RunningRows() {
    for (auto& tile : max) tile[0] = tile[1] = -kInfinity;
    for (auto& tile : sum) tile[0] = tile[1] = 0.0F;
  }
};

// Over the four lanes of a row.
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Scores beyond the diagonal become -inf. `last`: the last column that the warp's first row sees,
// of the tile; each further row sees one more.
template <int kTiles, int kWidth> __device__ inline void mask(Sums<kTiles, kWidth>& s, int last) {
  const int own = last + lane_row() - lane_column();
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (n * 8 + i % 2 > own + m * 16 + i / 2 * 8) s.v[m][n][i] = -kInfinity;
    }
  }
}

// What a new maximum multiplies earlier sums by.
template <int kTiles> struct Corrections { float v[kTiles][2]; };

// Scores become exp(scale (score - running maximum)); sums of rows follow the maximum, and so must
// what was multiplied. `exponent`: scale log2(e).
template <int kTiles, int kWidth>
__device__ inline Corrections<kTiles> online_softmax(Sums<kTiles, kWidth>& s,
                                                     RunningRows<kTiles>& rows, float exponent) {
  Corrections<kTiles> corrections;
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = rows.max[m][half];
#pragma unroll
      for (auto& part : s.v[m]) largest = fmaxf(largest, fmaxf(part[half * 2], part[half * 2 + 1]));
      largest = row_max(largest);
      const float base = largest == -kInfinity ? 0.0F : largest;  // no key seen yet
      const float correction = exp2f((rows.max[m][half] - base) * exponent);
      rows.max[m][half] = largest;
      float sum = 0.0F;
#pragma unroll
      for (auto& part : s.v[m]) {
#pragma unroll
        for (int i = half * 2; i < half * 2 + 2; ++i) {
          part[i] = exp2f(fmaf(part[i], exponent, -base * exponent));
          sum += part[i];
        }
      }
      rows.sum[m][half] = fmaf(rows.sum[m][half], correction, sum);
      corrections.v[m][half] = correction;
    }
  }
  return corrections;
}
template <int kTiles, int kHead>
__device__ inline void follow(Sums<kTiles, kHead>& o, const Corrections<kTiles>& corrections) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (auto& part : o.v[m]) {
#pragma unroll
      for (int i = 0; i < 4; ++i) part[i] *= corrections.v[m][i / 2];
    }
  }
}

// o / sum, and lse. A row that sees no key has sum 0.
template <int kTiles, int kHead>
__device__ inline void finish(Sums<kTiles, kHead>& o, const RunningRows<kTiles>& rows, float* lse,
                              int stride, int first, int end, float scale) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = row_sum(rows.sum[m][half]);
      const float factor = sum == 0.0F ? 0.0F : 1.0F / sum;
#pragma unroll
      for (auto& part : o.v[m]) {
        part[half * 2] *= factor;
        part[half * 2 + 1] *= factor;
      }
      const int row = first + m * 16 + half * 8 + lane_row();
      if (row < end && lane_column() == 0)
        lse[static_cast<std::int64_t>(row) * stride] = fmaf(rows.max[m][half], scale, logf(sum));
    }
  }
}

}  // namespace grist::cuda::attention
