#pragma once
// Arithmetic on one token's row of expert logits, for router.cpp. Rows are padded to a multiple of
// kLanes with kPad, whose exponential and sigmoid are exactly 0. Every element and every sum is
// formed by the same IEEE operations in the same order on any instruction set (no fused
// multiply-add, no library exp), so routing does not depend on the machine.
#include <bit>
#include <cmath>
#include <cstdint>

namespace grist::cpu::row {

constexpr int kLanes = 16;
constexpr float kPad = -1e30F;

inline std::int64_t padded(std::int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

// exp(x) for x <= 0, NaN for NaN; below about 1.5 ulp off, 0 where the result would be denormal.
// x = n ln 2 + r, |r| <= ln 2 / 2, and a degree-7 Taylor polynomial in r (error 5e-9).
inline float exp_negative(float x) {
  constexpr float kRound = 12582912.0F;           // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0.693145751953125F;  // its product with |n| <= 126 is exact
  constexpr float kLn2Low = 1.42860682030941723e-6F;
  const float t = x * 1.44269504088896341F + kRound;
  const float n = t - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.0F / 5040.0F;
  p = p * r + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * (r * r) + r + 1.0F;
  const std::uint32_t power = (std::bit_cast<std::uint32_t>(t) << 23) + 0x3F800000U;  // 2^n
  const float y = p * std::bit_cast<float>(power);
  const std::uint32_t keep = x < -87.3F ? 0U : 0xFFFFFFFFU;  // a mask, so that loops vectorise
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(y) & keep);
}

// Sum over a padded row: lane i adds elements i, i + kLanes, ...; then a tree over the lanes.
inline float tree_over_lanes(float* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

inline float sum(const float* x, std::int64_t n) {
  float lanes[kLanes] = {};
  for (std::int64_t j = 0; j < n; j += kLanes)
    for (int i = 0; i < kLanes; ++i) lanes[i] += x[j + i];
  return tree_over_lanes(lanes);
}

inline float dot(const float* x, const float* y, std::int64_t n) {
  float lanes[kLanes] = {};
  for (std::int64_t j = 0; j < n; j += kLanes)
    for (int i = 0; i < kLanes; ++i) lanes[i] += x[j + i] * y[j + i];
  return tree_over_lanes(lanes);
}

// Of no use when there is a NaN, which reaches the result through the exponentials anyway.
inline float max(const float* x, std::int64_t n) {
  float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = x[i];
  for (std::int64_t j = kLanes; j < n; j += kLanes)
    for (int i = 0; i < kLanes; ++i) {
      const float v = x[j + i];
      lanes[i] = lanes[i] > v ? lanes[i] : v;
    }
  float m = lanes[0];
  for (int i = 1; i < kLanes; ++i) m = m > lanes[i] ? m : lanes[i];
  return m;
}

// e[j] = exp(x[j] - m); returns their sum. e may be x.
inline float exp_shifted(float* e, const float* x, float m, std::int64_t n) {
  float lanes[kLanes] = {};
  for (std::int64_t j = 0; j < n; j += kLanes) {
    float block[kLanes];
    for (int i = 0; i < kLanes; ++i) block[i] = exp_negative(x[j + i] - m);
    for (int i = 0; i < kLanes; ++i) lanes[i] += block[i];
    for (int i = 0; i < kLanes; ++i) e[j + i] = block[i];
  }
  return tree_over_lanes(lanes);
}

inline void scale(float* x, float factor, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += kLanes)
    for (int i = 0; i < kLanes; ++i) x[j + i] *= factor;
}

// s[j] = 1 / (1 + exp(-x[j])); ds[j] = s (1 - s), without cancellation. s may be x.
inline void sigmoid(float* s, float* ds, const float* x, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += kLanes) {
    float value[kLanes];
    float slope[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const float v = x[j + i];
      const float e = exp_negative(-std::abs(v));
      const float inverse = 1.0F / (1.0F + e);
      const float small = e * inverse;
      value[i] = v < 0.0F ? small : inverse;
      slope[i] = e * inverse * inverse;
    }
    for (int i = 0; i < kLanes; ++i) s[j + i] = value[i];
    for (int i = 0; i < kLanes; ++i) ds[j + i] = slope[i];
  }
}

// log(1 / (1 + exp(-x))) = min(x, 0) - log(1 + e), e = exp(-|x|) in [0, 1], with
// log(1 + e) = 2 atanh(e / (2 + e)) as a series (argument <= 1/3, error 1e-8).
inline void log_sigmoid(float* y, const float* x, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += kLanes) {
    float block[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const float v = x[j + i];
      const float e = exp_negative(-std::abs(v));
      const float t = e / (2.0F + e);
      const float t2 = t * t;
      float p = 1.0F / 13.0F;
      p = p * t2 + 1.0F / 11.0F;
      p = p * t2 + 1.0F / 9.0F;
      p = p * t2 + 1.0F / 7.0F;
      p = p * t2 + 1.0F / 5.0F;
      p = p * t2 + 1.0F / 3.0F;
      p = p * t2 + 1.0F;
      block[i] = 0.5F * (v - std::abs(v)) - 2.0F * t * p;  // the first term is min(v, 0)
    }
    for (int i = 0; i < kLanes; ++i) y[j + i] = block[i];
  }
}

// A float's place in ascending order as an integer; -0 equals +0, NaN comes after everything.
inline std::uint32_t order_key(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x + 0.0F);
  const std::uint32_t key = (u >> 31) != 0 ? ~u : u | 0x80000000U;
  return x == x ? key : 0xFFFFFFFFU;
}

}  // namespace grist::cpu::row
