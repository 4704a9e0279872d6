// Router, CPU.
//
//   forward     logits -> K experts a token and their weights
//   statistics  load, mean probabilities, logsumexp^2, entropy, share of the largest weight
//   backward    gradients of the weights, the balancing loss and the z loss into dlogits
//
// Shapes    logits (N, E); ids, weights (N, K).  Any N, 1 <= K <= E <= kMaxExperts.
// Launch    64 tokens a task; statistics: 256 tokens of one segment.
// Numerics  a token's result depends on its row alone; sums over tokens in double over fixed chunks
//           of tokens, added in order: bits do not depend on threads or instruction set.
// Traffic   logits once; a row is worked on in L1.
// See       docs/routing.md, kernels/cuda/router.cu, test tests/ops/router_test.cpp.
#include <algorithm>
#include <cmath>
#include <functional>

#include "grist/core/memory.h"
#include "grist/ops/router.h"
#include "kernels/backends.h"
#include "kernels/cpu/router_math.h"

namespace grist::cpu {
namespace {

using ops::RouterMode;
using ops::ScoreFunction;

constexpr std::int64_t kForwardChunk = 64;      // tokens a task
constexpr std::int64_t kStatisticsChunk = 256;  // tokens a partial sum: part of the result's bits
constexpr int kNumScalars = 3;

// One padded row of floats on the stack.
struct Row {
  alignas(64) float v[ops::kMaxExperts];

  void load(const float* x, std::int64_t n, float pad) {
    std::copy_n(x, n, v);
    std::fill(v + n, v + row::padded(n), pad);
  }
};

// In place: x becomes softmax(x) over a padded row; returns logsumexp(x).
float softmax(float* x, std::int64_t n) {
  const float m = row::max(x, n);
  const float sum = row::exp_shifted(x, x, m, n);
  row::scale(x, 1.0F / sum, n);
  return m + static_cast<float>(std::log(static_cast<double>(sum)));
}

// The K largest of x[0, E), best first; ties to the lower index; NaN counts as the largest, so that
// it reaches the loss and the step is skipped.
void choose(std::int32_t* ids, const float* x, std::int64_t E, std::int64_t K) {
  std::uint64_t keys[ops::kMaxExperts];  // (value, complement of the index): no two are equal
  for (std::int64_t e = 0; e < E; ++e)
    keys[e] =
        (std::uint64_t{row::order_key(x[e])} << 32) | (0xFFFFFFFFU - static_cast<unsigned>(e));
  std::partial_sort(keys, keys + K, keys + E, std::greater<>());
  for (std::int64_t k = 0; k < K; ++k)
    ids[k] = static_cast<std::int32_t>(0xFFFFFFFFU - static_cast<std::uint32_t>(keys[k]));
}

// Weights of the chosen experts. `chosen` holds their logits (padded); `all` the token's whole row.
void weigh(float* weights, Row& chosen, Row& all, const RouterMode& mode, std::int64_t E,
           std::int64_t K) {
  const std::int64_t Ep = row::padded(E);
  const std::int64_t Kp = row::padded(K);
  float factor = mode.routed_scale;
  if (row::is_elementwise(mode.score)) {
    Row slope;
    row::scores(mode.score, chosen.v, slope.v, chosen.v, Kp);
    if (mode.norm_topk) factor /= row::sum(chosen.v, Kp) + 1e-20F;
  } else if (row::weights_are_softmax_of_chosen(mode)) {
    softmax(chosen.v, Kp);
  } else {
    const float m = row::max(all.v, Ep);
    const float sum = row::exp_shifted(all.v, all.v, m, Ep);
    row::exp_shifted(chosen.v, chosen.v, m, Kp);
    row::scale(chosen.v, 1.0F / sum, Kp);
  }
  for (std::int64_t k = 0; k < K; ++k) weights[k] = factor * chosen.v[k];
}

// What the choice compares: the logits, whose order is the scores' order, unless a bias is added.
void selection_scores(Row& scores, const float* bias, const RouterMode& mode, std::int64_t E) {
  if (bias == nullptr) return;
  const std::int64_t Ep = row::padded(E);
  if (row::is_elementwise(mode.score)) {
    Row slope;
    row::scores(mode.score, scores.v, slope.v, scores.v, Ep);
  } else if (mode.pre_softmax) {
    softmax(scores.v, Ep);
  }
  for (std::int64_t e = 0; e < E; ++e) scores.v[e] += bias[e];
}

}  // namespace

void router_forward(const Context& ctx, const ops::RouterForward& a) {
  const std::int64_t N = a.logits.shape[0];
  const std::int64_t E = a.logits.shape[1];
  const std::int64_t K = a.ids.shape[1];
  const auto* logits = a.logits.as<float>();
  const float* bias = a.bias ? a.bias.as<float>() : nullptr;
  auto* ids = a.ids.as<std::int32_t>();
  auto* weights = a.weights.as<float>();
  const std::int64_t chunks = (N + kForwardChunk - 1) / kForwardChunk;
  parallel_for(ctx, chunks, [&](std::int64_t chunk, int /*worker*/) {
    Row all;
    Row chosen;
    const std::int64_t end = std::min(N, (chunk + 1) * kForwardChunk);
    for (std::int64_t n = chunk * kForwardChunk; n < end; ++n) {
      const float* l = logits + n * E;
      std::int32_t* id = ids + n * K;
      all.load(l, E, row::kPad);
      selection_scores(all, bias, a.mode, E);
      choose(id, all.v, E, K);
      if (bias != nullptr) all.load(l, E, row::kPad);
      for (std::int64_t k = 0; k < K; ++k) chosen.v[k] = l[id[k]];
      std::fill(chosen.v + K, chosen.v + row::padded(K), row::kPad);
      weigh(weights + n * K, chosen, all, a.mode, E, K);
    }
  });
}

// ---- statistics ------------------------------------------------------------------------------

namespace {

// Sums over one chunk of tokens.
struct Partial {
  std::int64_t* counts;  // (E)
  double* prob_sums;     // (E)
  double* scalars;       // (kNumScalars)
};

struct Probabilities {
  double logsumexp = 0;
  double entropy = 0;  // of q, nats
};

// q becomes softmax(l); q log q is summed as q (l - max) - q log(sum).
Probabilities softmax_probabilities(Row& q, std::int64_t Ep) {
  Row shifted;
  const float m = row::max(q.v, Ep);
  for (std::int64_t j = 0; j < Ep; ++j) shifted.v[j] = q.v[j] - m;
  const float sum = row::exp_shifted(q.v, q.v, m, Ep);
  const float inverse = 1.0F / sum;
  const double log_sum = std::log(static_cast<double>(sum));
  const double mean = static_cast<double>(row::dot(q.v, shifted.v, Ep)) * inverse;
  row::scale(q.v, inverse, Ep);
  return {static_cast<double>(m) + log_sum, log_sum - mean};
}

// q becomes s / sum of s.
Probabilities elementwise_probabilities(ScoreFunction score, Row& q, std::int64_t Ep) {
  Row other;
  const float m = row::max(q.v, Ep);
  const float exp_sum = row::exp_shifted(other.v, q.v, m, Ep);
  Row log_s;
  row::log_scores(score, log_s.v, q.v, Ep);
  row::scores(score, q.v, other.v, q.v, Ep);
  const float sum = row::sum(q.v, Ep);
  const float inverse = 1.0F / sum;
  const double mean = static_cast<double>(row::dot(q.v, log_s.v, Ep)) * inverse;
  row::scale(q.v, inverse, Ep);
  return {static_cast<double>(m) + std::log(static_cast<double>(exp_sum)),
          std::log(static_cast<double>(sum)) - mean};
}

void add_token(const Partial& p, Row& q, const std::int32_t* ids, const float* weights,
               const ops::RouterStatistics& a) {
  const std::int64_t E = a.logits.shape[1];
  const std::int64_t K = a.ids.shape[1];
  const Probabilities r = row::is_elementwise(a.mode.score)
                              ? elementwise_probabilities(a.mode.score, q, row::padded(E))
                              : softmax_probabilities(q, row::padded(E));
  for (std::int64_t e = 0; e < E; ++e) p.prob_sums[e] += static_cast<double>(q.v[e]);
  double sum = 0;
  double largest = weights[0];
  for (std::int64_t k = 0; k < K; ++k) {
    ++p.counts[ids[k]];
    const double w = weights[k];
    sum += w;
    if (w > largest) largest = w;
  }
  p.scalars[0] += r.logsumexp * r.logsumexp;
  p.scalars[1] += r.entropy;
  p.scalars[2] += largest / sum;
}

// Adds the chunks of each segment in order; then f.
void add_partials(const ops::RouterStatistics& a, const Partial& p, std::int64_t chunks) {
  const std::int64_t E = a.logits.shape[1];
  const std::int64_t S = a.counts.shape[0];
  auto* counts = a.counts.as<std::int64_t>();
  auto* prob_sums = a.prob_sums.as<double>();
  auto* scalars = a.scalars.as<double>();
  auto* fractions = a.fractions.as<float>();
  std::fill_n(counts, S * E, 0);
  std::fill_n(prob_sums, S * E, 0.0);
  std::fill_n(scalars, kNumScalars, 0.0);
  for (std::int64_t i = 0; i < S * chunks; ++i) {
    const std::int64_t s = i / chunks;
    for (std::int64_t e = 0; e < E; ++e) counts[s * E + e] += p.counts[i * E + e];
    for (std::int64_t e = 0; e < E; ++e) prob_sums[s * E + e] += p.prob_sums[i * E + e];
    for (int j = 0; j < kNumScalars; ++j) scalars[j] += p.scalars[i * kNumScalars + j];
  }
  const std::int64_t choices = a.ids.numel() / S;
  const double scale = choices == 0 ? 0.0 : 1.0 / static_cast<double>(choices);
  for (std::int64_t i = 0; i < S * E; ++i)
    fractions[i] = static_cast<float>(scale * static_cast<double>(counts[i]));
}

}  // namespace

void router_statistics(const Context& ctx, const ops::RouterStatistics& a) {
  const std::int64_t N = a.logits.shape[0];
  const std::int64_t E = a.logits.shape[1];
  const std::int64_t K = a.ids.shape[1];
  const std::int64_t S = a.counts.shape[0];
  const std::int64_t segment = N / S;
  const std::int64_t chunks = (segment + kStatisticsChunk - 1) / kStatisticsChunk;  // a segment
  const ScratchScope scope(ctx.scratch);
  const Partial all{ctx.scratch->allocate<std::int64_t>(S * chunks * E),
                    ctx.scratch->allocate<double>(S * chunks * E),
                    ctx.scratch->allocate<double>(S * chunks * kNumScalars)};
  parallel_for(ctx, S * chunks, [&](std::int64_t task, int /*worker*/) {
    const Partial p{all.counts + task * E, all.prob_sums + task * E,
                    all.scalars + task * kNumScalars};
    std::fill_n(p.counts, E, 0);
    std::fill_n(p.prob_sums, E, 0.0);
    std::fill_n(p.scalars, kNumScalars, 0.0);
    const std::int64_t first = (task / chunks) * segment;
    const std::int64_t begin = (task % chunks) * kStatisticsChunk;
    const std::int64_t end = std::min(segment, begin + kStatisticsChunk);
    Row q;
    for (std::int64_t n = first + begin; n < first + end; ++n) {
      q.load(a.logits.as<float>() + n * E, E, row::kPad);
      add_token(p, q, a.ids.as<std::int32_t>() + n * K, a.weights.as<float>() + n * K, a);
    }
  });
  add_partials(a, all, chunks);
}

// ---- backward --------------------------------------------------------------------------------

namespace {

// One token's operands, and the rows its gradient is made from.
struct Token {
  const float* logits;      // (E)
  const std::int32_t* ids;  // (K)
  const float* weights;     // (K)
  const float* dweights;    // (K) gradient of the gate weights, 0 where dropped
  const float* fractions;   // (E), padded with 0; null: no aux loss
  float aux;                // aux_scale * E / tokens of a segment
  float z_scale;
};

// <dweights, weights> / routed_scale: the mean of the weight gradients under the gate.
float mean_gradient(const Token& t, const RouterMode& mode, std::int64_t K) {
  float sum = 0;
  for (std::int64_t k = 0; k < K; ++k) sum += t.dweights[k] * t.weights[k];
  return sum / mode.routed_scale;
}

// Everything that goes through the full softmax p:
//   dl_j = p_j (aux f_j + 2 z lse - sum_m (aux f_m p_m) - [weights are p] lambda sum_S p_i A_i)
void through_full_softmax(Row& dl, const Token& t, bool balanced, float through_gate,
                          std::int64_t E) {
  const std::int64_t Ep = row::padded(E);
  dl.load(t.logits, E, row::kPad);
  const float logsumexp = softmax(dl.v, Ep);
  float common = -through_gate;
  if (t.z_scale != 0.0F) common += 2.0F * t.z_scale * logsumexp;
  if (!balanced) {
    row::scale(dl.v, common, Ep);
    return;
  }
  common -= t.aux * row::dot(dl.v, t.fractions, Ep);
  for (std::int64_t j = 0; j < Ep; j += row::kLanes)
    for (int i = 0; i < row::kLanes; ++i) dl.v[j + i] *= t.aux * t.fractions[j + i] + common;
}

// q = s / Z over all experts:  dl_j += aux s'_j / Z (f_j - sum_m f_m q_m)
void through_all_scores(ScoreFunction score, Row& dl, const Token& t, std::int64_t E) {
  const std::int64_t Ep = row::padded(E);
  Row s;
  Row slope;
  s.load(t.logits, E, row::kPad);
  row::scores(score, s.v, slope.v, s.v, Ep);
  const float inverse = 1.0F / row::sum(s.v, Ep);
  const float mean = row::dot(s.v, t.fractions, Ep) * inverse;
  const float factor = t.aux * inverse;
  for (std::int64_t j = 0; j < Ep; j += row::kLanes)
    for (int i = 0; i < row::kLanes; ++i)
      dl.v[j + i] += factor * slope.v[j + i] * (t.fractions[j + i] - mean);
}

// The chosen experts' own terms.
void through_chosen(Row& dl, const Token& t, const RouterMode& mode, std::int64_t K) {
  const float mean = mean_gradient(t, mode, K);
  if (!row::is_elementwise(mode.score)) {
    const bool normalised = row::weights_are_softmax_of_chosen(mode);
    for (std::int64_t k = 0; k < K; ++k)
      dl.v[t.ids[k]] += t.weights[k] * (normalised ? t.dweights[k] - mean : t.dweights[k]);
    return;
  }
  Row s;
  Row slope;
  for (std::int64_t k = 0; k < K; ++k) s.v[k] = t.logits[t.ids[k]];
  std::fill(s.v + K, s.v + row::padded(K), row::kPad);
  row::scores(mode.score, s.v, slope.v, s.v, row::padded(K));
  const float factor = mode.norm_topk ? mode.routed_scale / (row::sum(s.v, row::padded(K)) + 1e-20F)
                                      : mode.routed_scale;
  for (std::int64_t k = 0; k < K; ++k) {
    const float g = mode.norm_topk ? t.dweights[k] - mean : t.dweights[k];
    dl.v[t.ids[k]] += factor * slope.v[k] * g;
  }
}

void token_gradient(Row& dl, const Token& t, const RouterMode& mode, std::int64_t E,
                    std::int64_t K) {
  const bool softmax_scores = !row::is_elementwise(mode.score);
  const bool gate_is_full = softmax_scores && !row::weights_are_softmax_of_chosen(mode);
  const bool balanced = t.fractions != nullptr;
  if (gate_is_full || t.z_scale != 0.0F || (balanced && softmax_scores)) {
    const float through_gate = gate_is_full ? mean_gradient(t, mode, K) * mode.routed_scale : 0.0F;
    through_full_softmax(dl, t, balanced && softmax_scores, through_gate, E);
  } else {
    std::fill_n(dl.v, row::padded(E), 0.0F);
  }
  if (balanced && !softmax_scores) through_all_scores(mode.score, dl, t, E);
  through_chosen(dl, t, mode, K);
}

}  // namespace

void router_backward(const Context& ctx, const ops::RouterBackward& a) {
  const std::int64_t N = a.logits.shape[0];
  const std::int64_t E = a.logits.shape[1];
  const std::int64_t K = a.ids.shape[1];
  const bool balanced = a.load_fraction && a.aux_scale != 0.0F;
  const std::int64_t segment = balanced ? N / a.load_fraction.shape[0] : N;
  const auto* rows = a.drow_weight.as<float>();
  const auto* slots = a.slot_row.as<std::int32_t>();
  const float aux = a.aux_scale * static_cast<float>(E) / static_cast<float>(segment);
  const std::int64_t chunks = (N + kForwardChunk - 1) / kForwardChunk;
  parallel_for(ctx, chunks, [&](std::int64_t chunk, int /*worker*/) {
    Row dl;
    Row dweights;
    Row fractions;
    std::int64_t loaded = -1;  // segment whose fractions are in the row
    const std::int64_t end = std::min(N, (chunk + 1) * kForwardChunk);
    for (std::int64_t n = chunk * kForwardChunk; n < end; ++n) {
      if (balanced && n / segment != loaded) {
        loaded = n / segment;
        fractions.load(a.load_fraction.as<float>() + loaded * E, E, 0.0F);
      }
      for (std::int64_t k = 0; k < K; ++k) {
        const std::int32_t slot = slots[n * K + k];
        dweights.v[k] = slot < 0 ? 0.0F : rows[slot];
      }
      const Token t{.logits = a.logits.as<float>() + n * E,
                    .ids = a.ids.as<std::int32_t>() + n * K,
                    .weights = a.weights.as<float>() + n * K,
                    .dweights = dweights.v,
                    .fractions = balanced ? fractions.v : nullptr,
                    .aux = aux,
                    .z_scale = a.z_scale};
      token_gradient(dl, t, a.mode, E, K);
      std::copy_n(dl.v, E, a.dlogits.as<float>() + n * E);
    }
  });
}

}  // namespace grist::cpu
