// The functions of isa.h for AVX-512 (F, DQ): 14 x 32 tiles, 28 accumulators of 32 registers.
//
// Shapes    those of tile_kernel.h and vector_kernel.h.
// Launch    inside a task.
// Numerics  the bits of every other instruction set (isa.h).
// Traffic   two vectors of B and fourteen values of A a step of the summed dim.
// See       kernels/cpu/isa.h, test tests/ops/linear_test.cpp.
#include <immintrin.h>

#include <cstdint>

namespace grist::cpu {
namespace {
struct V {
  using T = __m512;
  static constexpr int width = 16;
  static T load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, T v) { _mm512_storeu_ps(p, v); }
  static T set1(float v) { return _mm512_set1_ps(v); }
  static T add(T a, T b) { return _mm512_add_ps(a, b); }
  static T sub(T a, T b) { return _mm512_sub_ps(a, b); }
  static T mul(T a, T b) { return _mm512_mul_ps(a, b); }
  static T div(T a, T b) { return _mm512_div_ps(a, b); }
  static T fma(T a, T b, T c) { return _mm512_fmadd_ps(a, b, c); }
  static T max(T a, T b) { return _mm512_max_ps(a, b); }
  static T if_less(T a, T b, T x, T y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
  }
  static T if_nan(T a, T x, T y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), y, x);
  }
  static T add_exponent(T p, T t) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
  }
};
constexpr int kTileRows = 14, kStripVectors = 2;
}  // namespace
}  // namespace grist::cpu

#include "tile_kernel.h"
#include "vector_kernel.h"

namespace grist::cpu {

template <bool kDepthMajor>
using Tiles = TileTable<kDepthMajor, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14>;

extern const IsaKernels kAvx512Kernels;
const IsaKernels kAvx512Kernels = {"avx512",
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
