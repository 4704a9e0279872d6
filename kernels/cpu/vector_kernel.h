#pragma once
// Row arithmetic over a vector type V, compiled once for each instruction set. Included only by
// matmul_<isa>.cpp, after V is defined; everything is in an unnamed namespace, so that no function
// compiled for one instruction set can be linked into another's code.
//
// V: width, T, load, store, set1, add, sub, mul, div, fma(a, b, c) = a b + c,
// max(a, b) = a > b ? a : b, if_less(a, b, x, y) = a < b ? x : y, if_nan(a, x, y),
// add_exponent(p, t): adds the low integer bits of t to p's exponent.
#include "kernels/cpu/isa.h"

namespace grist::cpu {
namespace {

constexpr std::int64_t kLanes = 16;
constexpr int kLaneVectors = static_cast<int>(kLanes) / V::width;
static_assert(kLanes % V::width == 0, "lanes are whole vectors");

// Loads n < width elements, the rest filled.
inline V::T load_part(const float* x, std::int64_t n, float fill) {
  alignas(64) float t[V::width];
  for (int i = 0; i < V::width; ++i) t[i] = i < n ? x[i] : fill;
  return V::load(t);
}

inline void store_part(float* y, V::T v, std::int64_t n) {
  alignas(64) float t[V::width];
  V::store(t, v);
  for (std::int64_t i = 0; i < n; ++i) y[i] = t[i];
}

// exp(x) = 2^n e^r, n = round(x / ln 2), |r| <= ln(2) / 2; e^r = 1 + r + r^2 q(r) with q the
// minimax polynomial of degree 4 (relative error 3e-9).
inline V::T exp_of(V::T x) {
  const V::T magic = V::set1(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const V::T t = V::fma(x, V::set1(1.44269504F), magic);
  const V::T n = V::sub(t, magic);
  V::T r = V::fma(n, V::set1(-0x1.62e430p-1F), x);
  r = V::fma(n, V::set1(0x1.05c610p-29F), r);
  V::T q = V::set1(0x1.6a2446p-10F);
  q = V::fma(q, r, V::set1(0x1.1239d4p-7F));
  q = V::fma(q, r, V::set1(0x1.5558f2p-5F));
  q = V::fma(q, r, V::set1(0x1.555492p-3F));
  q = V::fma(q, r, V::set1(0x1.fffffcp-2F));
  const V::T p = V::fma(V::mul(r, r), q, V::add(r, V::set1(1.0F)));
  V::T y = V::add_exponent(p, t);
  y = V::if_less(x, V::set1(-87.3F), V::set1(0.0F), y);
  y = V::if_less(V::set1(88.72F), x, V::set1(__builtin_inff()), y);
  return V::if_nan(x, x, y);
}

inline V::T sigmoid_of(V::T x) {
  const V::T one = V::set1(1.0F);
  return V::div(one, V::add(one, exp_of(V::sub(V::set1(0.0F), x))));
}

// Adds sixteen lanes in a tree.
inline float add_lanes(const V::T* acc) {
  alignas(64) float lanes[kLanes];
  for (int j = 0; j < kLaneVectors; ++j) V::store(lanes + j * V::width, acc[j]);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

void exp_minus_row(float* y, const float* x, float shift, std::int64_t n) {
  const V::T s = V::set1(shift);
  std::int64_t i = 0;
  for (; i + V::width <= n; i += V::width) V::store(y + i, exp_of(V::sub(V::load(x + i), s)));
  if (i < n) store_part(y + i, exp_of(V::sub(load_part(x + i, n - i, 0.0F), s)), n - i);
}

float max_row(const float* x, std::int64_t n) {
  const float lowest = -__builtin_inff();
  V::T m = V::set1(lowest);
  std::int64_t i = 0;
  for (; i + V::width <= n; i += V::width) m = V::max(V::load(x + i), m);
  if (i < n) m = V::max(load_part(x + i, n - i, lowest), m);
  alignas(64) float lanes[V::width];
  V::store(lanes, m);
  float best = lanes[0];
  for (int j = 1; j < V::width; ++j) best = lanes[j] > best ? lanes[j] : best;
  return best;
}

// Calls step(j, offset, count) for vector j of each group of 16 lanes; count < width at the end.
template <class Step> inline void for_lanes(std::int64_t n, Step step) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLaneVectors; ++j) step(j, i + j * V::width, std::int64_t{V::width});
  }
  for (int j = 0; j < kLaneVectors && i < n; ++j, i += V::width)
    step(j, i, n - i < V::width ? n - i : std::int64_t{V::width});
}

inline V::T load_some(const float* x, std::int64_t count) {
  return count == V::width ? V::load(x) : load_part(x, count, 0.0F);
}

inline void store_some(float* y, V::T v, std::int64_t count) {
  if (count == V::width) {
    V::store(y, v);
  } else {
    store_part(y, v, count);
  }
}

float sum_row(const float* x, std::int64_t n) {
  V::T acc[kLaneVectors];
  for (V::T& v : acc) v = V::set1(0.0F);
  for_lanes(n, [&](int j, std::int64_t i, std::int64_t count) {
    acc[j] = V::add(acc[j], load_some(x + i, count));
  });
  return add_lanes(acc);
}

float dot_row(const float* x, const float* y, std::int64_t n) {
  V::T acc[kLaneVectors];
  for (V::T& v : acc) v = V::set1(0.0F);
  for_lanes(n, [&](int j, std::int64_t i, std::int64_t count) {
    acc[j] = V::fma(load_some(x + i, count), load_some(y + i, count), acc[j]);
  });
  return add_lanes(acc);
}

void add_scaled_row(float* y, const float* x, float s, std::int64_t n) {
  const V::T scale = V::set1(s);
  for_lanes(n, [&](int, std::int64_t i, std::int64_t count) {
    store_some(y + i, V::fma(scale, load_some(x + i, count), load_some(y + i, count)), count);
  });
}

void swiglu_row(float* a, const float* gate, const float* up, std::int64_t n) {
  for_lanes(n, [&](int, std::int64_t i, std::int64_t count) {
    const V::T g = load_some(gate + i, count);
    const V::T silu = V::mul(g, sigmoid_of(g));
    store_some(a + i, V::mul(silu, load_some(up + i, count)), count);
  });
}

float swiglu_gradient_row(const SwigluGradientRow& r) {
  const V::T one = V::set1(1.0F), weight = V::set1(r.weight);
  V::T acc[kLaneVectors];
  for (V::T& v : acc) v = V::set1(0.0F);
  for_lanes(r.n, [&](int j, std::int64_t i, std::int64_t count) {
    const V::T g = load_some(r.gate + i, count), u = load_some(r.up + i, count);
    const V::T h = load_some(r.h + i, count);
    const V::T sigmoid = sigmoid_of(g);
    const V::T silu = V::mul(g, sigmoid);
    const V::T a = V::mul(silu, u);
    const V::T da = V::mul(weight, h);
    const V::T slope = V::fma(silu, V::sub(one, sigmoid), sigmoid);  // silu'(gate)
    acc[j] = V::fma(h, a, acc[j]);
    store_some(r.dgate + i, V::mul(V::mul(da, u), slope), count);
    store_some(r.dup + i, V::mul(da, silu), count);
    if (r.weighted_a != nullptr) store_some(r.weighted_a + i, V::mul(weight, a), count);
  });
  return add_lanes(acc);
}

}  // namespace
}  // namespace grist::cpu
