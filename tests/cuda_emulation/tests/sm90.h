#pragma once
// For tests of what sm_90 has: tensor maps, and operands of wgmma by hand.
#include <cudaTypedefs.h>
#include <grist_ptx_sm90.cuh>

#include "emulated.h"

namespace grist::emu {

using Bf16s = std::vector<__nv_bfloat16>;

// Small whole numbers: sums of their products are exact.
inline Bf16s numbers(int n, int seed) {
  Bf16s x;
  for (int i = 0; i < n; ++i)
    x.push_back(__float2bfloat16(static_cast<float>((i * seed + i / 7) % 23 - 11)));
  return x;
}
inline float number(const Bf16s& x, int i) {
  return __bfloat162float(x[static_cast<std::size_t>(i)]);
}

// A map of (outer,) rows, columns: boxes of box_rows lines of 64 elements, swizzled by 128 bytes.
inline CUtensorMap map_of(void* data, std::vector<cuuint64_t> extents, cuuint32_t box_rows,
                          CUresult want = CUDA_SUCCESS) {
  void* entry = nullptr;
  EXPECT_EQ(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                             cudaEnableDefault, nullptr),
            cudaSuccess);
  std::vector<cuuint64_t> strides;
  cuuint64_t bytes = 2;
  for (const cuuint64_t e : extents) strides.push_back(bytes *= e);
  const cuuint32_t box[3] = {64, box_rows, 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUtensorMap map = {};
  EXPECT_EQ(reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry)(
                &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(extents.size()),
                data, extents.data(), strides.data(), box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
            want);
  return map;
}

// d (64, N) = 1 + a b^T with a (64, depth), b (N, depth)?
inline bool is_product(const std::vector<float>& d, const Bf16s& a, const Bf16s& b, int N,
                       int depth) {
  for (int m = 0; m < 64; ++m) {
    for (int n = 0; n < N; ++n) {
      float want = 1;
      for (int k = 0; k < depth; ++k) want += number(a, m * depth + k) * number(b, n * depth + k);
      if (d[static_cast<std::size_t>(m * N + n)] != want) return false;
    }
  }
  return true;
}

// Element (i, k) of an operand 64 deep, in the layout that swizzled_matrix() says.
__device__ inline void put(__nv_bfloat16* s, bool mn_major, int i, int k, __nv_bfloat16 value) {
  const int line = mn_major ? i / 64 * 64 + k : i, along = mn_major ? i % 64 : k;
  s[line * 64 + ((along / 8 ^ line % 8) * 8) + along % 8] = value;
}

}  // namespace grist::emu
