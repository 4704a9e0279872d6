// The functions of isa.h in plain C++ for any processor: std::fma is exact everywhere, one
// instruction on ARM64 and a slow call on x86 without FMA. Vectors are arrays of four; the compiler
// maps them to registers where it can.
//
// Shapes    those of tile_kernel.h and vector_kernel.h.
// Launch    inside a task.
// Numerics  the bits of every other instruction set (isa.h).
// Traffic   four vectors of B and six values of A a step of the summed dim.
// See       kernels/cpu/isa.h, test tests/ops/linear_test.cpp.
#include <bit>
#include <cmath>
#include <cstdint>

namespace grist::cpu {
namespace {
struct V {
  static constexpr int width = 4;
  struct T {
    float v[width];
  };
  template <class F> static T each(F f) {
    T r;
    for (int i = 0; i < width; ++i) r.v[i] = f(i);
    return r;
  }
  static T load(const float* p) {
    return each([&](int i) { return p[i]; });
  }
  static void store(float* p, T a) {
    for (int i = 0; i < width; ++i) p[i] = a.v[i];
  }
  static T set1(float a) {
    return each([&](int) { return a; });
  }
  static T add(T a, T b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  static T sub(T a, T b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  static T mul(T a, T b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static T div(T a, T b) {
    return each([&](int i) { return a.v[i] / b.v[i]; });
  }
  static T fma(T a, T b, T c) {
    return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  static T max(T a, T b) {
    return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static T if_less(T a, T b, T x, T y) {
    return each([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
  }
  static T if_nan(T a, T x, T y) {
    return each([&](int i) { return a.v[i] != a.v[i] ? x.v[i] : y.v[i]; });
  }
  static T add_exponent(T p, T t) {
    return each([&](int i) {
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p.v[i]) +
                                  (std::bit_cast<std::uint32_t>(t.v[i]) << 23));
    });
  }
};
constexpr int kTileRows = 6, kStripVectors = 4;
}  // namespace
}  // namespace grist::cpu

#include "tile_kernel.h"
#include "vector_kernel.h"

namespace grist::cpu {

template <bool kDepthMajor> using Tiles = TileTable<kDepthMajor, 1, 2, 3, 4, 5, 6>;

extern const IsaKernels kPortableKernels;
const IsaKernels kPortableKernels = {"portable",
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
