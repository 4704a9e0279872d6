// The functions of isa.h for AVX2 with FMA: 6 x 16 tiles, 12 accumulators of 16 registers.
//
// Shapes    those of tile_kernel.h and vector_kernel.h.
// Launch    inside a task.
// Numerics  the bits of every other instruction set (isa.h).
// Traffic   two vectors of B and six values of A a step of the summed dim.
// See       kernels/cpu/isa.h, test tests/ops/linear_test.cpp.
#include <immintrin.h>

#include <cstdint>

namespace grist::cpu {
namespace {
struct V {
  using T = __m256;
  static constexpr int width = 8;
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, T v) { _mm256_storeu_ps(p, v); }
  static T set1(float v) { return _mm256_set1_ps(v); }
  static T add(T a, T b) { return _mm256_add_ps(a, b); }
  static T sub(T a, T b) { return _mm256_sub_ps(a, b); }
  static T mul(T a, T b) { return _mm256_mul_ps(a, b); }
  static T div(T a, T b) { return _mm256_div_ps(a, b); }
  static T fma(T a, T b, T c) { return _mm256_fmadd_ps(a, b, c); }
  static T max(T a, T b) { return _mm256_max_ps(a, b); }
  static T if_less(T a, T b, T x, T y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
  }
  static T if_nan(T a, T x, T y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  }
  static T add_exponent(T p, T t) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
  }
};
constexpr int kTileRows = 6, kStripVectors = 2;
}  // namespace
}  // namespace grist::cpu

#include "tile_kernel.h"
#include "vector_kernel.h"

namespace grist::cpu {

template <bool kDepthMajor> using Tiles = TileTable<kDepthMajor, 1, 2, 3, 4, 5, 6>;

extern const IsaKernels kAvx2Kernels;
const IsaKernels kAvx2Kernels = {"avx2",
                                 multiply_strips<false, Tiles<false>>,
                                 multiply_strips<true, Tiles<true>>,
                                 exp_minus_row,
                                 max_row,
                                 sum_row,
                                 dot_row,
                                 add_scaled_row,
                                 swiglu_row,
                                 swiglu_gradient_row};

}  // namespace grist::cpu
