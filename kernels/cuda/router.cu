// Router, CUDA: choice, gate weights and gradients. Statistics are in router_statistics.cu.
//
// Shapes    logits, dlogits (N, E); ids, weights (N, K).  Any N >= 1, 1 <= K <= E <= kMaxExperts.
// Launch    half a warp a token (router_math.cuh), up to 16 tokens a block.
// Numerics  the CPU's operations in the CPU's order, built with --fmad=false and --ftz=true: ids
//           and weights have the CPU's bits; dlogits too, up to the rounding of one logarithm.
// Traffic   a token's logits are read from memory once, then from L1, for each sum over the row;
//           outputs written once.
// See       docs/routing.md, kernels/cpu/router.cpp, test tests/cuda/router_test.cpp.
#include <grist_ptx.cuh>

#include "grist/ops/router.h"
#include "kernels/backends.h"
#include "router_math.cuh"

namespace grist::cuda {
namespace {

using ops::RouterMode;
using Key = unsigned long long;

// ---- forward ---------------------------------------------------------------------------------

struct Forward {
  std::int32_t* ids;
  float* weights;
  const float* logits;
  const float* bias;  // or null
  std::int64_t N;
  int E, K, stride;
  RouterMode mode;
};

// What the choice compares, as integers in the scores' order: the logits, unless a bias is added.
__device__ void selection_keys(std::uint32_t* keys, const PaddedRow& logits, const Forward& a) {
  const auto store = [&](auto&& score) {
    for (int e = token_lane(); e < a.E; e += kTokenLanes)
      keys[e] = row::order_key(a.bias == nullptr ? logits(e) : score(logits(e)) + a.bias[e]);
  };
  if (a.bias != nullptr && row::is_elementwise(a.mode.score)) {
    store([&](float l) { return row::score(a.mode.score, l).value; });
  } else if (a.bias != nullptr && a.mode.pre_softmax) {
    store(softmax_of(a.E, logits));
  } else {
    store([](float l) { return l; });
  }
}

// No two experts have equal keys; ties of the score go to the lower id.
__device__ Key choice_key(std::uint32_t score, int e) {
  return (Key{score} << 32) | static_cast<unsigned>(ops::kMaxExperts - 1 - e);
}
__device__ std::uint32_t expert_of(Key key) {
  return static_cast<std::uint32_t>(ops::kMaxExperts - 1) - static_cast<std::uint32_t>(key);
}

// The largest of the lane's own keys below `limit`; 0: none.
__device__ Key own_best(const std::uint32_t* keys, int E, Key limit) {
  Key best = 0;
  for (int e = token_lane(); e < E; e += kTokenLanes) {
    const Key key = choice_key(keys[e], e);
    if (key < limit && key > best) best = key;
  }
  return best;
}

// The K best experts, best first. Entry k is written by lane k % 16.
__device__ void choose(std::uint32_t* chosen, const std::uint32_t* keys, int E, int K) {
  Key own = own_best(keys, E, ~Key{0});
  for (int k = 0; k < K; ++k) {
    const Key best = half_warp_max(own);
    if (token_lane() == k % kTokenLanes) chosen[k] = expert_of(best);
    if (own == best) own = own_best(keys, E, best);
  }
}

// Stores the weights of the chosen experts, whose logits l(k) gives.
template <class F>
__device__ void weigh(float* weights, bool live, F&& l, const PaddedRow& logits, const Forward& a) {
  const auto store = [&](float factor, auto&& score) {
    for (int k = token_lane(); live && k < a.K; k += kTokenLanes) weights[k] = factor * score(l(k));
  };
  if (row::is_elementwise(a.mode.score)) {
    const auto score = [&](float x) { return row::score(a.mode.score, x).value; };
    float factor = a.mode.routed_scale;
    if (a.mode.norm_topk) factor /= row_sum(a.K, [&](int k) { return score(l(k)); }) + 1e-20F;
    store(factor, score);
  } else if (row::weights_are_softmax_of_chosen(a.mode)) {
    store(a.mode.routed_scale, softmax_of(a.K, l));
  } else {
    store(a.mode.routed_scale, softmax_of(a.E, logits));
  }
}

__global__ void router_forward_kernel(Forward a) {
  GRIST_DYNAMIC_SHARED(std::uint32_t, shared);
  const TokenOfThread t = token_of_thread(a.N, a.stride);
  std::uint32_t* keys = &shared + t.words;          // (E)
  std::uint32_t* chosen = keys + row::padded(a.E);  // (K); lanes read only what they wrote
  const PaddedRow logits{a.logits + t.n * a.E, a.E, row::kPad};
  selection_keys(keys, logits, a);
  choose(chosen, keys, a.E, a.K);
  for (int k = token_lane(); t.live && k < a.K; k += kTokenLanes)
    a.ids[t.n * a.K + k] = static_cast<std::int32_t>(chosen[k]);
  const auto chosen_logit = [&](int k) { return k < a.K ? logits.x[chosen[k]] : row::kPad; };
  weigh(a.weights + t.n * a.K, t.live, chosen_logit, logits, a);
}

// ---- backward --------------------------------------------------------------------------------

struct Backward {
  float* dlogits;
  const float* logits;
  const std::int32_t* ids;
  const float* weights;
  const float* drow_weight;
  const std::int32_t* slot_row;
  const float* fractions;  // (S, E); null: no aux loss
  std::int64_t N, segment;
  int E, K, stride;
  float aux;  // aux_scale * E / tokens of a segment
  float z_scale;
  RouterMode mode;
};

// One token's operands.
struct Token {
  PaddedRow logits;
  PaddedRow fractions;
  const std::int32_t* ids;
  const float* weights;
  const std::int32_t* slots;
  const float* drow_weight;

  __device__ float dweight(int k) const { return slots[k] < 0 ? 0.0F : drow_weight[slots[k]]; }
};

// <dweights, weights> / routed_scale: the mean of the weight gradients under the gate.
__device__ float mean_gradient(const Token& t, const Backward& a) {
  float sum = 0;
  for (int k = 0; k < a.K; ++k) sum += t.dweight(k) * t.weights[k];
  return sum / a.mode.routed_scale;
}

// Everything that goes through the full softmax p:
//   dl_j = p_j (aux f_j + 2 z lse - sum_m (aux f_m p_m) - [weights are p] lambda sum_S p_i A_i)
__device__ void through_full_softmax(float* dl, const Token& t, bool balanced, float through_gate,
                                     const Backward& a) {
  const Softmax p = softmax_of(a.E, t.logits);
  for_own(a.E, [&](int j) { dl[j] = p(t.logits(j)); });
  float common = -through_gate;
  if (a.z_scale != 0.0F) common += 2.0F * a.z_scale * p.logsumexp();
  if (balanced) common -= a.aux * row_sum(a.E, [&](int j) { return dl[j] * t.fractions(j); });
  for_own(a.E, [&](int j) { dl[j] *= balanced ? a.aux * t.fractions(j) + common : common; });
}

// q = s / Z over all experts:  dl_j += aux s'_j / Z (f_j - sum_m f_m q_m)
__device__ void through_all_scores(float* dl, const Token& t, const Backward& a) {
  const auto s = [&](int j) { return row::score(a.mode.score, t.logits(j)); };
  const float inverse = 1.0F / row_sum(a.E, [&](int j) { return s(j).value; });
  const float mean = row_sum(a.E, [&](int j) { return s(j).value * t.fractions(j); }) * inverse;
  const float factor = a.aux * inverse;
  for_own(a.E, [&](int j) { dl[j] += factor * s(j).slope * (t.fractions(j) - mean); });
}

// The chosen experts' own terms; any lane adds to any element of dl.
__device__ void through_chosen(float* dl, const Token& t, const Backward& a) {
  const float mean = mean_gradient(t, a);
  const auto s = [&](int k) {
    return row::score(a.mode.score, k < a.K ? t.logits.x[t.ids[k]] : row::kPad);
  };
  const bool softmax = !row::is_elementwise(a.mode.score);
  const bool centred = softmax ? row::weights_are_softmax_of_chosen(a.mode) : a.mode.norm_topk;
  float factor = a.mode.routed_scale;
  if (!softmax && centred) factor /= row_sum(a.K, [&](int k) { return s(k).value; }) + 1e-20F;
  __syncwarp();
  for (int k = token_lane(); k < a.K; k += kTokenLanes) {
    const float g = centred ? t.dweight(k) - mean : t.dweight(k);
    dl[t.ids[k]] += (softmax ? t.weights[k] : factor * s(k).slope) * g;
  }
  __syncwarp();
}

__global__ void router_backward_kernel(Backward a) {
  GRIST_DYNAMIC_SHARED(float, shared);
  const TokenOfThread place = token_of_thread(a.N, a.stride);
  float* dl = &shared + place.words;  // (E), padded
  const std::int64_t n = place.n;
  const bool balanced = a.fractions != nullptr;
  const float* fractions = balanced ? a.fractions + n / a.segment * a.E : nullptr;
  const Token t{{a.logits + n * a.E, a.E, row::kPad},
                {fractions, a.E, 0.0F},
                a.ids + n * a.K,
                a.weights + n * a.K,
                a.slot_row + n * a.K,
                a.drow_weight};
  const bool softmax = !row::is_elementwise(a.mode.score);
  const bool gate_is_full = softmax && !row::weights_are_softmax_of_chosen(a.mode);
  if (gate_is_full || a.z_scale != 0.0F || (balanced && softmax)) {
    const float through_gate = gate_is_full ? mean_gradient(t, a) * a.mode.routed_scale : 0.0F;
    through_full_softmax(dl, t, balanced && softmax, through_gate, a);
  } else {
    for_own(a.E, [&](int j) { dl[j] = 0.0F; });
  }
  if (balanced && !softmax) through_all_scores(dl, t, a);
  through_chosen(dl, t, a);
  for (int e = token_lane(); place.live && e < a.E; e += kTokenLanes)
    a.dlogits[n * a.E + e] = dl[e];
}

}  // namespace

// ---- host ------------------------------------------------------------------------------------

void router_forward(const Context& ctx, const ops::RouterForward& a) {
  const std::int64_t N = a.logits.shape[0], E = a.logits.shape[1], K = a.ids.shape[1];
  const TokenGrid grid = token_grid(N, row::padded(E) + row::padded(K));
  const Forward f{.ids = a.ids.as<std::int32_t>(),
                  .weights = a.weights.as<float>(),
                  .logits = a.logits.as<float>(),
                  .bias = a.bias ? a.bias.as<float>() : nullptr,
                  .N = N,
                  .E = static_cast<int>(E),
                  .K = static_cast<int>(K),
                  .stride = grid.stride,
                  .mode = a.mode};
  launch(router_forward_kernel, grid.blocks, grid.threads, grid.shared_bytes, stream_of(ctx), f);
}

void router_backward(const Context& ctx, const ops::RouterBackward& a) {
  const std::int64_t N = a.logits.shape[0], E = a.logits.shape[1], K = a.ids.shape[1];
  const bool balanced = a.load_fraction && a.aux_scale != 0.0F;
  const std::int64_t segment = balanced ? N / a.load_fraction.shape[0] : N;
  const TokenGrid grid = token_grid(N, row::padded(E));
  const Backward b{.dlogits = a.dlogits.as<float>(),
                   .logits = a.logits.as<float>(),
                   .ids = a.ids.as<std::int32_t>(),
                   .weights = a.weights.as<float>(),
                   .drow_weight = a.drow_weight.as<float>(),
                   .slot_row = a.slot_row.as<std::int32_t>(),
                   .fractions = balanced ? a.load_fraction.as<float>() : nullptr,
                   .N = N,
                   .segment = segment,
                   .E = static_cast<int>(E),
                   .K = static_cast<int>(K),
                   .stride = grid.stride,
                   .aux = a.aux_scale * static_cast<float>(E) / static_cast<float>(segment),
                   .z_scale = a.z_scale,
                   .mode = a.mode};
  launch(router_backward_kernel, grid.blocks, grid.threads, grid.shared_bytes, stream_of(ctx), b);
}

}  // namespace grist::cuda
