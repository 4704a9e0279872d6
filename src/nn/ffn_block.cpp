#include "block.h"
#include "grist/ops/dispatch.h"
#include "grist/ops/experts.h"
#include "grist/ops/linear.h"
#include "grist/ops/norm.h"
#include "grist/ops/optimizer.h"
#include "grist/ops/router.h"
#include "grist/ops/swiglu.h"

namespace grist::nn {

namespace {

// The first rows of a flat workspace, as a matrix.
TensorView matrix(const TensorView& flat, std::int64_t rows_, std::int64_t columns) {
  TensorView v = flat;
  v.shape = {rows_, columns};
  return v;
}

struct DenseFfn {
  const Parameter& gate_up;
  const Parameter& down;
  TensorView z, a, dz, da;
};

DenseFfn dense_ffn(const LayerRun& run) {
  const std::int64_t F = run.config.intermediate_size;
  return {*run.p.gate_up,
          *run.p.down,
          run.act.z,
          matrix(run.work.a, run.N, F),
          matrix(run.work.dz, run.N, 2 * F),
          matrix(run.work.da, run.N, F)};
}

DenseFfn shared_expert(const LayerRun& run) {
  const std::int64_t F = run.config.moe.shared_expert_intermediate_size;
  return {*run.p.shared_gate_up, *run.p.shared_down,
          run.act.shared_z,      matrix(run.work.shared_a, run.N, F),
          run.work.shared_dz,    matrix(run.work.da, run.N, F)};
}

void dense_up(const LayerRun& run, const DenseFfn& f) {
  ops::linear_forward(run.ctx, {.y = f.z, .x = run.act.n_mid, .w = f.gate_up.compute});
  ops::swiglu_forward(run.ctx, {.a = f.a, .z = f.z});
}

// work.dh -> work.dn (added to with `add`)
void dense_backward(const LayerRun& run, const DenseFfn& f, bool accumulate, bool add) {
  ops::swiglu_forward(run.ctx, {.a = f.a, .z = f.z});
  ops::linear_backward_weight(
      run.ctx, {.dw = f.down.grad, .dy = run.work.dh, .x = f.a, .accumulate = accumulate});
  ops::linear_backward_input(run.ctx, {.dx = f.da, .dy = run.work.dh, .w = f.down.compute});
  ops::swiglu_backward(run.ctx, {.dz = f.dz, .da = f.da, .z = f.z});
  ops::linear_backward_weight(
      run.ctx, {.dw = f.gate_up.grad, .dy = f.dz, .x = run.act.n_mid, .accumulate = accumulate});
  ops::linear_backward_input(
      run.ctx, {.dx = run.work.dn, .dy = f.dz, .w = f.gate_up.compute, .accumulate = add});
}

void route(const LayerRun& run, const RoutingInput& routing) {
  const LayerActivations& a = run.act;
  const MoeConfig& moe = run.config.moe;
  const ops::RouterMode mode = router_mode(moe.router);
  ops::linear_forward(run.ctx, {.y = a.logits, .x = a.n_mid, .w = run.p.router->compute});
  ops::router_forward(
      run.ctx,
      {.ids = a.ids, .weights = a.weights, .logits = a.logits, .bias = routing.bias, .mode = mode});
  ops::router_statistics(run.ctx, {.counts = a.counts,
                                   .fractions = a.fractions,
                                   .prob_sums = a.prob_sums,
                                   .scalars = a.scalars,
                                   .logits = a.logits,
                                   .ids = a.ids,
                                   .weights = a.weights,
                                   .mode = mode});
  ops::dispatch_plan(run.ctx,
                     {.expert_offsets = a.expert_offsets,
                      .row_token = a.row_token,
                      .row_weight = a.row_weight,
                      .slot_row = a.slot_row,
                      .ids = a.ids,
                      .weights = a.weights,
                      .num_experts = moe.num_experts,
                      .capacity = routing.capacity,
                      .policy = moe.token_drop_policy == "position" ? ops::DropPolicy::position
                                                                    : ops::DropPolicy::probs});
}

void routed_up(const LayerRun& run) {
  const std::int64_t R = run.act.row_token.numel();
  ops::expert_up_forward(run.ctx, {.z = run.act.z,
                                   .a = matrix(run.work.a, R, run.config.moe.moe_intermediate_size),
                                   .x = run.act.n_mid,
                                   .row_token = run.act.row_token,
                                   .expert_offsets = run.act.expert_offsets,
                                   .w = run.p.expert_gate_up->compute});
}

void routed_backward(const LayerRun& run, const BalanceScale& balance, bool accumulate) {
  const LayerActivations& a = run.act;
  const Workspace& w = run.work;
  const std::int64_t R = a.row_token.numel(), F = run.config.moe.moe_intermediate_size;
  const TensorView dz = matrix(w.dz, R, 2 * F), weighted = matrix(w.a, R, F);
  ops::expert_down_backward(run.ctx, {.dz = dz,
                                      .weighted_a = weighted,
                                      .drow_weight = w.drow_weight,
                                      .dy = w.dh,
                                      .z = a.z,
                                      .row_token = a.row_token,
                                      .row_weight = a.row_weight,
                                      .expert_offsets = a.expert_offsets,
                                      .w = run.p.expert_down->compute});
  ops::expert_weight_gradient(run.ctx, {.dw = run.p.expert_down->grad,
                                        .dy = w.dh,
                                        .dy_token = a.row_token,
                                        .x = weighted,
                                        .x_token = {},
                                        .expert_offsets = a.expert_offsets,
                                        .accumulate = accumulate});
  ops::expert_weight_gradient(run.ctx, {.dw = run.p.expert_gate_up->grad,
                                        .dy = dz,
                                        .dy_token = {},
                                        .x = a.n_mid,
                                        .x_token = a.row_token,
                                        .expert_offsets = a.expert_offsets,
                                        .accumulate = accumulate});
  ops::expert_up_backward(run.ctx, {.dx = w.rows,
                                    .dz = dz,
                                    .expert_offsets = a.expert_offsets,
                                    .w = run.p.expert_gate_up->compute});
  ops::gather_sum(run.ctx, {.y = w.dn, .rows = w.rows, .slot_row = a.slot_row, .weights = {}});
  ops::router_backward(run.ctx, {.dlogits = w.dlogits,
                                 .logits = a.logits,
                                 .ids = a.ids,
                                 .weights = a.weights,
                                 .drow_weight = w.drow_weight,
                                 .slot_row = a.slot_row,
                                 .load_fraction = balance.load_fraction,
                                 .aux_scale = balance.aux_scale,
                                 .z_scale = balance.z_scale,
                                 .mode = router_mode(run.config.moe.router)});
  ops::linear_backward_weight(
      run.ctx, {.dw = run.p.router->grad, .dy = w.dlogits, .x = a.n_mid, .accumulate = accumulate});
  ops::linear_backward_input(
      run.ctx, {.dx = w.dn, .dy = w.dlogits, .w = run.p.router->compute, .accumulate = true});
}

}  // namespace

ops::RouterMode router_mode(const RouterConfig& config) {
  return {.score = config.score_function == "sigmoid" ? ops::ScoreFunction::sigmoid
                                                      : ops::ScoreFunction::softmax,
          .pre_softmax = config.pre_softmax,
          .norm_topk = config.norm_topk_prob,
          .routed_scale = static_cast<float>(config.routed_scaling_factor)};
}

void ffn_up(const LayerRun& run) {
  if (!run.p.is_moe()) {
    dense_up(run, dense_ffn(run));
    return;
  }
  routed_up(run);
  if (run.p.shared_gate_up) dense_up(run, shared_expert(run));
}

void ffn_forward(const LayerRun& run, const RoutingInput& routing) {
  if (run.p.is_moe()) route(run, routing);
  ffn_up(run);
  const TensorView out = run.work.out;
  if (!run.p.is_moe()) {
    ops::linear_forward(run.ctx, {.y = out, .x = dense_ffn(run).a, .w = run.p.down->compute});
    return;
  }
  const bool shared = run.p.shared_down.has_value();
  if (shared)
    ops::linear_forward(run.ctx,
                        {.y = out, .x = shared_expert(run).a, .w = run.p.shared_down->compute});
  const LayerActivations& a = run.act;
  const std::int64_t R = a.row_token.numel();
  ops::expert_down_forward(run.ctx,
                           {.y = run.work.rows,
                            .a = matrix(run.work.a, R, run.config.moe.moe_intermediate_size),
                            .expert_offsets = a.expert_offsets,
                            .w = run.p.expert_down->compute});
  ops::gather_sum(run.ctx, {.y = out,
                            .rows = run.work.rows,
                            .slot_row = a.slot_row,
                            .weights = a.weights,
                            .accumulate = shared});
}

void ffn_backward(const LayerRun& run, const BalanceScale& balance, bool accumulate) {
  if (run.p.is_moe()) {
    routed_backward(run, balance, accumulate);
    if (run.p.shared_gate_up) dense_backward(run, shared_expert(run), accumulate, true);
  } else {
    dense_backward(run, dense_ffn(run), accumulate, false);
  }
  ops::rms_norm_backward(run.ctx, {.dh = run.work.dh,
                                   .dw = run.p.post_attention_norm.grad,
                                   .dy = run.work.dn,
                                   .dresidual = run.work.dh,
                                   .h = run.act.h_mid,
                                   .rstd = run.act.rstd_mid,
                                   .w = run.p.post_attention_norm.master});
}

}  // namespace grist::nn
