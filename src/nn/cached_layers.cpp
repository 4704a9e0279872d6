#include "cached_layers.h"

#include "grist/ops/attention.h"
#include "grist/ops/linear.h"

namespace grist::nn {

Residual run_cached_layers(const Context& ctx, const Model& model, const TensorView& router_values,
                           Activations& act, const AttentionInput& in, const KeysOfLayer& keys) {
  const ModelConfig& c = model.config();
  const std::int64_t n = act.tokens();
  Residual residual;
  for (std::size_t i = 0; i < act.layers.size(); ++i) {
    LayerActivations& a = act.layers[i];
    const LayerRun run{ctx, c, model.parameters().layers[i], a, act.work, n};
    input_norm(run, residual);
    project_qkv(run, in);
    const KeysValues all = keys(i, a);
    ops::attention_forward(ctx, {.o = a.o,
                                 .lse = a.lse,
                                 .q = a.q,
                                 .k = all.k,
                                 .v = all.v,
                                 .cu_seqlens_q = in.cu_seqlens_q,
                                 .cu_seqlens_k = in.cu_seqlens_k,
                                 .scale = attention_scale(c)});
    ops::linear_forward(ctx, {.y = act.work.out,
                              .x = reshape(a.o, {n, c.num_attention_heads * c.head_dim}),
                              .w = model.parameters().layers[i].o.compute});
    mid_norm(run, true);
    RoutingInput routing;
    if (run.p.is_moe()) {
      const std::size_t moe = i - static_cast<std::size_t>(c.first_moe_layer());
      routing.bias = selection_bias(model.router_state(), router_values, moe);
    }
    ffn_forward(run, routing);
    residual = {act.work.out, a.h_mid};
  }
  return residual;
}

}  // namespace grist::nn
