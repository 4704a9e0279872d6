#pragma once
// Arithmetic on one token's row of expert logits, for router.cpp. Rows are padded to a multiple of
// kLanes. Every element and every sum is formed by the same IEEE operations in the same order on
// any instruction set (kernels/router_scalar.h), so routing does not depend on the machine.
#include "grist/core/fixed_sum.h"
#include "kernels/router_scalar.h"

namespace grist::cpu::row {

using grist::row::is_elementwise;
using grist::row::kLanes;
using grist::row::kPad;
using grist::row::order_key;
using grist::row::padded;
using grist::row::weights_are_softmax_of_chosen;

// Over a padded row: lane i adds elements i, i + kLanes, ...; then a tree over the lanes.
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
    for (int i = 0; i < kLanes; ++i) block[i] = grist::row::exp_negative(x[j + i] - m);
    for (int i = 0; i < kLanes; ++i) lanes[i] += block[i];
    for (int i = 0; i < kLanes; ++i) e[j + i] = block[i];
  }
  return tree_over_lanes(lanes);
}

inline void scale(float* x, float factor, std::int64_t n) {
  for (std::int64_t j = 0; j < n; j += kLanes)
    for (int i = 0; i < kLanes; ++i) x[j + i] *= factor;
}

// Elementwise scores and their slopes. s may be x.
inline void scores(ops::ScoreFunction f, float* s, float* ds, const float* x, std::int64_t n) {
  grist::row::with_elementwise(f, [=](auto constant) {
    for (std::int64_t j = 0; j < n; j += kLanes) {
      float value[kLanes];
      float slope[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const auto both = grist::row::score(constant(), x[j + i]);
        value[i] = both.value;
        slope[i] = both.slope;
      }
      for (int i = 0; i < kLanes; ++i) s[j + i] = value[i];
      for (int i = 0; i < kLanes; ++i) ds[j + i] = slope[i];
    }
  });
}

inline void log_scores(ops::ScoreFunction f, float* y, const float* x, std::int64_t n) {
  grist::row::with_elementwise(f, [=](auto constant) {
    for (std::int64_t j = 0; j < n; j += kLanes) {
      float block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = grist::row::log_score(constant(), x[j + i]);
      for (int i = 0; i < kLanes; ++i) y[j + i] = block[i];
    }
  });
}

}  // namespace grist::cpu::row
