// The attention half of a layer (nn/block.h): norm, projections, norms of heads, rotation,
// attention, output; forward and backward.
#include "block.h"
#include "grist/ops/attention.h"
#include "grist/ops/linear.h"
#include "grist/ops/norm.h"
#include "grist/ops/rope.h"

#include <cmath>

namespace grist::nn {

float attention_scale(const ModelConfig& c) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
}

namespace {

TensorView matrix(const TensorView& t) {
  return reshape(t, {t.shape[0], t.shape[1] * t.shape[2]});
}  // (N, H*Dh)
TensorView heads(const TensorView& t) {
  return reshape(t, {t.shape[0] * t.shape[1], t.shape[2]});
}  // (N*H, Dh)

void head_norm(const LayerRun& run, const TensorView& out, const TensorView& rstd,
               const TensorView& raw, const Parameter& w) {
  ops::rms_norm_forward(run.ctx, {.y = heads(out),
                                  .h = {},
                                  .rstd = rstd,
                                  .x = heads(raw),
                                  .residual = {},
                                  .w = w.master,
                                  .eps = static_cast<float>(run.config.rms_norm_eps)});
}

// d is the gradient of the normed heads on entry, of the raw ones on exit.
void head_norm_backward(const LayerRun& run, const TensorView& d, const TensorView& rstd,
                        const TensorView& raw, const Parameter& w) {
  ops::rms_norm_backward(run.ctx, {.dh = heads(d),
                                   .dw = w.grad,
                                   .dy = heads(d),
                                   .dresidual = {},
                                   .h = heads(raw),
                                   .rstd = rstd,
                                   .w = w.master});
}

}  // namespace

void input_norm(const LayerRun& run, const Residual& in) {
  const bool add = in.residual.data != nullptr;
  ops::rms_norm_forward(run.ctx, {.y = run.act.n_in,
                                  .h = add ? run.act.h_in : TensorView{},
                                  .rstd = run.act.rstd_in,
                                  .x = add ? in.x : ConstTensorView(run.act.h_in),
                                  .residual = in.residual,
                                  .w = run.p.input_norm.master,
                                  .eps = static_cast<float>(run.config.rms_norm_eps)});
}

void project_qkv(const LayerRun& run, const AttentionInput& in) {
  const LayerActivations& a = run.act;
  const bool norm = run.config.qk_norm;
  const TensorView q = norm ? a.q_raw : a.q;
  const TensorView k = norm ? a.k_raw : a.k;
  ops::linear_forward(run.ctx, {.y = matrix(q), .x = a.n_in, .w = run.p.q.compute});
  ops::linear_forward(run.ctx, {.y = matrix(k), .x = a.n_in, .w = run.p.k.compute});
  ops::linear_forward(run.ctx, {.y = matrix(a.v), .x = a.n_in, .w = run.p.v.compute});
  if (norm) {
    head_norm(run, a.q, a.q_rstd, a.q_raw, *run.p.q_norm);
    head_norm(run, a.k, a.k_rstd, a.k_raw, *run.p.k_norm);
  }
  ops::rope(run.ctx, {.x = a.q, .positions = in.positions, .table = in.rope_table});
  ops::rope(run.ctx, {.x = a.k, .positions = in.positions, .table = in.rope_table});
}

void attention_forward(const LayerRun& run, const AttentionInput& in) {
  const LayerActivations& a = run.act;
  project_qkv(run, in);
  ops::attention_forward(run.ctx, {.o = a.o,
                                   .lse = a.lse,
                                   .q = a.q,
                                   .k = a.k,
                                   .v = a.v,
                                   .cu_seqlens_q = in.cu_seqlens_q,
                                   .cu_seqlens_k = in.cu_seqlens_k,
                                   .scale = attention_scale(run.config)});
  ops::linear_forward(run.ctx, {.y = run.work.out, .x = matrix(a.o), .w = run.p.o.compute});
}

void mid_norm(const LayerRun& run, bool from_attention) {
  const LayerActivations& a = run.act;
  ops::rms_norm_forward(
      run.ctx, {.y = a.n_mid,
                .h = from_attention ? a.h_mid : TensorView{},
                .rstd = a.rstd_mid,
                .x = from_attention ? ConstTensorView(run.work.out) : ConstTensorView(a.h_mid),
                .residual = from_attention ? ConstTensorView(a.h_in) : ConstTensorView{},
                .w = run.p.post_attention_norm.master,
                .eps = static_cast<float>(run.config.rms_norm_eps)});
}

void final_norm(const Context& ctx, const ModelConfig& config, const Parameters& parameters,
                const Activations& act, const Residual& in) {
  ops::rms_norm_forward(ctx, {.y = act.n_final,
                              .h = act.h_final,
                              .rstd = act.rstd_final,
                              .x = in.x,
                              .residual = in.residual,
                              .w = parameters.final_norm.master,
                              .eps = static_cast<float>(config.rms_norm_eps)});
}

void attention_backward(const LayerRun& run, const AttentionInput& in, bool accumulate) {
  const LayerActivations& a = run.act;
  const Workspace& w = run.work;
  ops::linear_backward_weight(
      run.ctx, {.dw = run.p.o.grad, .dy = w.dh, .x = matrix(a.o), .accumulate = accumulate});
  ops::linear_backward_input(run.ctx, {.dx = matrix(w.d_o), .dy = w.dh, .w = run.p.o.compute});
  ops::attention_backward(run.ctx, {.dq = w.dq,
                                    .dk = w.dk,
                                    .dv = w.dv,
                                    .do_ = w.d_o,
                                    .o = a.o,
                                    .lse = a.lse,
                                    .q = a.q,
                                    .k = a.k,
                                    .v = a.v,
                                    .cu_seqlens_q = in.cu_seqlens_q,
                                    .cu_seqlens_k = in.cu_seqlens_k,
                                    .scale = attention_scale(run.config)});
  ops::rope(run.ctx,
            {.x = w.dq, .positions = in.positions, .table = in.rope_table, .inverse = true});
  ops::rope(run.ctx,
            {.x = w.dk, .positions = in.positions, .table = in.rope_table, .inverse = true});
  if (run.config.qk_norm) {
    head_norm_backward(run, w.dq, a.q_rstd, a.q_raw, *run.p.q_norm);
    head_norm_backward(run, w.dk, a.k_rstd, a.k_raw, *run.p.k_norm);
  }
  const struct {
    const Parameter& weight;
    TensorView d;
  } projections[] = {{run.p.q, matrix(w.dq)}, {run.p.k, matrix(w.dk)}, {run.p.v, matrix(w.dv)}};
  bool add = false;
  for (const auto& [weight, d] : projections) {
    ops::linear_backward_weight(
        run.ctx, {.dw = weight.grad, .dy = d, .x = a.n_in, .accumulate = accumulate});
    ops::linear_backward_input(run.ctx,
                               {.dx = w.dn, .dy = d, .w = weight.compute, .accumulate = add});
    add = true;
  }
  ops::rms_norm_backward(run.ctx, {.dh = w.dh,
                                   .dw = run.p.input_norm.grad,
                                   .dy = w.dn,
                                   .dresidual = w.dh,
                                   .h = a.h_in,
                                   .rstd = a.rstd_in,
                                   .w = run.p.input_norm.master});
}

}  // namespace grist::nn
