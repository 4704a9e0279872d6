#pragma once
// Arithmetic on single router logits, the same bits in every backend: plain IEEE operations in a
// fixed order, no fused multiply-add (compile without contraction), no library exp. So a token gets
// the same experts and gate weights on any machine. constexpr lets device code call it too.
//
// What a score function is stands at the end; kernels ask these functions and know no score by name
// but softmax, which needs the whole row.
#include <bit>
#include <cstdint>
#include <type_traits>

#include "grist/ops/router.h"

namespace grist::row {

// Sums over a row use kLanes accumulators: lane i adds elements i, i + kLanes, ...; then
// lane i + 8 is added to lane i, then 4, 2, 1. Rows are padded with kPad, whose exponential and
// sigmoid are exactly 0.
constexpr int kLanes = 16;
constexpr float kPad = -1e30F;

constexpr std::int64_t padded(std::int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

constexpr float magnitude(float x) {
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFU);
}

// exp(x) for x <= 0, NaN for NaN; below about 1.5 ulp off, 0 where the result would be denormal.
// x = n ln 2 + r, |r| <= ln 2 / 2, and a degree-7 Taylor polynomial in r (error 5e-9).
constexpr float exp_negative(float x) {
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

// A score of one logit and its derivative.
struct Score {
  float value, slope;
};

// s = 1 / (1 + exp(-x)) and ds/dx = s (1 - s), without cancellation.
constexpr Score sigmoid(float x) {
  const float e = exp_negative(-magnitude(x));
  const float inverse = 1.0F / (1.0F + e);
  const float small = e * inverse;
  return {x < 0.0F ? small : inverse, e * inverse * inverse};
}

// log(1 / (1 + exp(-x))) = min(x, 0) - log(1 + e), e = exp(-|x|) in [0, 1], with
// log(1 + e) = 2 atanh(e / (2 + e)) as a series (argument <= 1/3, error 1e-8).
constexpr float log_sigmoid(float x) {
  const float e = exp_negative(-magnitude(x));
  const float t = e / (2.0F + e);
  const float t2 = t * t;
  float p = 1.0F / 13.0F;
  p = p * t2 + 1.0F / 11.0F;
  p = p * t2 + 1.0F / 9.0F;
  p = p * t2 + 1.0F / 7.0F;
  p = p * t2 + 1.0F / 5.0F;
  p = p * t2 + 1.0F / 3.0F;
  p = p * t2 + 1.0F;
  return 0.5F * (x - magnitude(x)) - 2.0F * t * p;  // the first term is min(x, 0)
}

// A float's place in ascending order as an integer; -0 equals +0, NaN comes after everything.
constexpr std::uint32_t order_key(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x + 0.0F);
  const std::uint32_t key = (u >> 31) != 0 ? ~u : u | 0x80000000U;
  return x == x ? key : 0xFFFFFFFFU;
}

// ---- score functions -------------------------------------------------------------------------

// Each expert's score is a function of its own logit, positive, and 0 with slope 0 at kPad.
constexpr bool is_elementwise(ops::ScoreFunction f) {
  switch (f) {
    case ops::ScoreFunction::softmax: return false;
    case ops::ScoreFunction::sigmoid: return true;
  }
  return false;
}

// Of elementwise functions.
constexpr Score score(ops::ScoreFunction f, float x) {
  switch (f) {
    case ops::ScoreFunction::softmax: break;
    case ops::ScoreFunction::sigmoid: return sigmoid(x);
  }
  return {};
}
constexpr float log_score(ops::ScoreFunction f, float x) {
  switch (f) {
    case ops::ScoreFunction::softmax: break;
    case ops::ScoreFunction::sigmoid: return log_sigmoid(x);
  }
  return 0.0F;
}

// body(constant) with an elementwise function known to the compiler, so that loops vectorise.
template <class Body> void with_elementwise(ops::ScoreFunction f, Body&& body) {
  using enum ops::ScoreFunction;
  switch (f) {
    case softmax: return;
    case sigmoid: return body(std::integral_constant<ops::ScoreFunction, sigmoid>());
  }
}

// The softmax over the chosen experts' logits; else a score over all experts, normalised or not.
constexpr bool weights_are_softmax_of_chosen(const ops::RouterMode& mode) {
  return !is_elementwise(mode.score) && (!mode.pre_softmax || mode.norm_topk);
}

}  // namespace grist::row
