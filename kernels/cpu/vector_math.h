#pragma once
// Arithmetic on rows of floats, as fast as the processor allows and with the same bits on every
// processor. Sums have a fixed shape: element i goes to lane i % 16 in ascending order, then the
// lanes are added in a tree (8 apart, 4, 2, 1). Any n >= 0, no alignment needed; inputs may alias
// outputs element for element.
#include "kernels/cpu/isa.h"

namespace grist::cpu {

// y = exp(x - shift). At most 2 units in the last place off; 0 where x - shift < -87.3 (-infinity
// too), infinity above 88.72, NaN for NaN. The softmax step: exp_minus, then sum_of.
inline void exp_minus(float* y, const float* x, float shift, std::int64_t n) {
  native_kernels().exp_minus(y, x, shift, n);
}
// -infinity for n = 0.
inline float max_of(const float* x, std::int64_t n) {
  return native_kernels().max_of(x, n);
}
inline float sum_of(const float* x, std::int64_t n) {
  return native_kernels().sum_of(x, n);
}
inline float dot(const float* x, const float* y, std::int64_t n) {
  return native_kernels().dot(x, y, n);
}
// y += s x, fused.
inline void add_scaled(float* y, const float* x, float s, std::int64_t n) {
  native_kernels().add_scaled(y, x, s, n);
}
// a = silu(gate) * up.
inline void swiglu(float* a, const float* gate, const float* up, std::int64_t n) {
  native_kernels().swiglu(a, gate, up, n);
}
// See SwigluGradientRow; returns <h, a>. With weight 1, h is the gradient of a.
inline float swiglu_gradient(const SwigluGradientRow& row) {
  return native_kernels().swiglu_gradient(row);
}

}  // namespace grist::cpu
