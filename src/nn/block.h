#pragma once
// One transformer layer in two halves: attention and feed-forward. Both read the residual stream
// through an RMSNorm and leave their contribution in work.out; the addition happens in the next
// norm (fused).
#include "grist/nn/model.h"
#include "grist/ops/router.h"

namespace grist::nn {

struct LayerRun {
  const Context& ctx;
  const ModelConfig& config;
  const LayerParameters& p;
  LayerActivations& act;
  Workspace& work;
  std::int64_t N = 0;
  std::size_t layer = 0;
  ExpertExchange* exchange = nullptr;  // null: all experts are here
};

struct AttentionInput {
  ConstTensorView positions, cu_seqlens_q, cu_seqlens_k, rope_table;
};

// The residual stream that arrives: h_in = x + residual; residual empty: act.h_in already holds it.
struct Residual {
  ConstTensorView x, residual;
};

struct RoutingInput {
  ConstTensorView bias;       // (E) f32 or empty
  std::int64_t capacity = 0;  // 0: dropless
};

// One layer's bias as routing takes it: empty where all is zero. A bias outlives its updates: a
// rate of 0 freezes it. `device`: Model::router_values_.
ConstTensorView selection_bias(const RouterState& routers, const TensorView& device,
                               std::size_t layer);

// Biases and load fractions as Model::router_values_ holds them.
std::vector<float> router_values(const RouterState& routers);

// What queries and keys are multiplied with: Dh^-0.5.
float attention_scale(const ModelConfig& c);

struct BalanceScale {
  ConstTensorView load_fraction;  // (S, E) f32
  float aux_scale = 0.0F;
  float z_scale = 0.0F;
};

// q, k, v of the new tokens from act.n_in (also used by the decoder); then attention itself.
void project_qkv(const LayerRun& run, const AttentionInput& in);
void input_norm(const LayerRun& run, const Residual& in);
void attention_forward(const LayerRun& run, const AttentionInput& in);  // act.n_in -> work.out
void mid_norm(const LayerRun& run,
              bool from_attention);  // h_mid = h_in + work.out, n_mid; or only n_mid again
void ffn_forward(const LayerRun& run, const RoutingInput& routing);  // act.n_mid -> work.out
// Behind the last layer: h_final = x + residual, n_final.
void final_norm(const Context& ctx, const ModelConfig& config, const Parameters& parameters,
                const Activations& act, const Residual& in);
// What ffn_forward left of act.n_mid -> act.z, made again; the routing stays.
void ffn_recompute(const LayerRun& run);

// dh (work.dh) is the gradient of the residual stream behind the layer on entry, in front of it on
// exit.
void ffn_backward(const LayerRun& run, const BalanceScale& balance, bool accumulate);
void attention_backward(const LayerRun& run, const AttentionInput& in, bool accumulate);

ops::RouterMode router_mode(const RouterConfig& config);

}  // namespace grist::nn
