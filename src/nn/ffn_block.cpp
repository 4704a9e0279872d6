// The feed-forward half of a layer (nn/block.h): a dense FFN, or router, experts and shared expert;
// forward and backward.
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

ops::ScoreFunction score_function(ScoreFunction word) {
  switch (word) {
    case ScoreFunction::softmax: return ops::ScoreFunction::softmax;
    case ScoreFunction::sigmoid: return ops::ScoreFunction::sigmoid;
  }
  return ops::ScoreFunction::softmax;
}

ops::DropPolicy drop_policy(TokenDropPolicy word) {
  switch (word) {
    case TokenDropPolicy::probs: return ops::DropPolicy::probs;
    case TokenDropPolicy::position: return ops::DropPolicy::position;
  }
  return ops::DropPolicy::probs;
}

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
  ops::dispatch_plan(run.ctx, {.expert_offsets = a.expert_offsets,
                               .row_token = a.row_token,
                               .row_weight = a.row_weight,
                               .slot_row = a.slot_row,
                               .ids = a.ids,
                               .weights = a.weights,
                               .num_experts = moe.num_experts,
                               .capacity = routing.capacity,
                               .policy = drop_policy(moe.token_drop_policy)});
}

// All rows at once when all experts are here; they are gathered from where they lie.
ExpertRows rows_here(const LayerRun& run) {
  const LayerActivations& a = run.act;
  const Workspace& w = run.work;
  const std::int64_t R = a.row_token.numel(), F = run.config.moe.moe_intermediate_size;
  const bool backward = static_cast<bool>(w.dz);
  return {.first = 0,
          .count = run.config.moe.num_experts,
          .x = a.n_mid,
          .dy = backward ? w.dh : TensorView{},
          .row_token = a.row_token,
          .row_weight = a.row_weight,
          .expert_offsets = a.expert_offsets,
          .source_offsets = a.expert_offsets,
          .z = a.z,
          .a = matrix(w.a, R, F),
          .rows = w.rows,
          .dz = backward ? matrix(w.dz, R, 2 * F) : TensorView{},
          .drow_weight = w.drow_weight};
}

// A pass over a layer's experts, wherever they are (nn/expert_exchange.h).
class ExpertVisit {
 public:
  ExpertVisit(const LayerRun& run, ExpertPass::Kind kind) : run_(run) {
    if (run.exchange == nullptr) return;
    const LayerActivations& a = run.act;
    run.exchange->begin(run.ctx,
                        {.kind = kind,
                         .layer = run.layer,
                         .expert_offsets = a.expert_offsets,
                         .row_token = a.row_token,
                         .row_weight = a.row_weight,
                         .tokens = kind == ExpertPass::Kind::backward ? run.work.dh : a.n_mid,
                         .rows = run.work.rows,
                         .drow_weight = run.work.drow_weight});
  }
  int chunks() const { return run_.exchange == nullptr ? 1 : run_.exchange->chunks(); }
  ExpertRows arrive(int chunk) const {
    return run_.exchange == nullptr ? rows_here(run_) : run_.exchange->arrive(run_.ctx, chunk);
  }
  void give_back(int chunk) const {
    if (run_.exchange != nullptr) run_.exchange->give_back(run_.ctx, chunk);
  }
  void finish() const {
    if (run_.exchange != nullptr) run_.exchange->finish(run_.ctx);
  }

 private:
  const LayerRun& run_;
};

void experts_up(const LayerRun& run, const ExpertRows& r) {
  ops::expert_up_forward(run.ctx, {.z = r.z,
                                   .a = r.a,
                                   .x = r.x,
                                   .row_token = r.row_token,
                                   .expert_offsets = r.expert_offsets,
                                   .w = run.p.expert_gate_up->compute});
}

void experts_down(const LayerRun& run, const ExpertRows& r) {
  ops::expert_down_forward(
      run.ctx,
      {.y = r.rows, .a = r.a, .expert_offsets = r.expert_offsets, .w = run.p.expert_down->compute});
}

// r.a becomes the weighted activation, an operand of the weight gradient.
void experts_backward(const LayerRun& run, const ExpertRows& r) {
  ops::expert_down_backward(run.ctx, {.dz = r.dz,
                                      .weighted_a = r.a,
                                      .drow_weight = r.drow_weight,
                                      .dy = r.dy,
                                      .z = r.z,
                                      .row_token = r.row_token,
                                      .row_weight = r.row_weight,
                                      .expert_offsets = r.expert_offsets,
                                      .w = run.p.expert_down->compute});
  ops::expert_up_backward(run.ctx, {.dx = r.rows,
                                    .dz = r.dz,
                                    .expert_offsets = r.expert_offsets,
                                    .w = run.p.expert_gate_up->compute});
}

void expert_weight_gradients(const LayerRun& run, const ExpertRows& r, bool accumulate) {
  // Gradients are kept apart by source, or one chain runs over all rows of an expert.
  const std::int64_t sources =
      run.p.expert_down->grad.shape[0] / run.p.expert_down->master.shape[0];
  const ConstTensorView offsets =
      sources == 1 ? rows(r.expert_offsets, r.first, r.first + r.count + 1) : r.source_offsets;
  const auto chunk = [&](const TensorView& grad) {
    return rows(grad, r.first * sources, (r.first + r.count) * sources);
  };
  ops::expert_weight_gradient(run.ctx, {.dw = chunk(run.p.expert_down->grad),
                                        .dy = r.dy,
                                        .dy_token = r.row_token,
                                        .x = r.a,
                                        .x_token = {},
                                        .expert_offsets = offsets,
                                        .accumulate = accumulate});
  ops::expert_weight_gradient(run.ctx, {.dw = chunk(run.p.expert_gate_up->grad),
                                        .dy = r.dz,
                                        .dy_token = {},
                                        .x = r.x,
                                        .x_token = r.row_token,
                                        .expert_offsets = offsets,
                                        .accumulate = accumulate});
}

// act.n_mid -> work.out
void moe_forward(const LayerRun& run, const RoutingInput& routing) {
  route(run, routing);
  const ExpertVisit visit(run, ExpertPass::Kind::forward);
  const TensorView out = run.work.out;
  const bool shared = run.p.shared_down.has_value();
  if (shared) {  // while rows are on their way
    const DenseFfn f = shared_expert(run);
    dense_up(run, f);
    ops::linear_forward(run.ctx, {.y = out, .x = f.a, .w = f.down.compute});
  }
  for (int c = 0; c < visit.chunks(); ++c) {
    const ExpertRows r = visit.arrive(c);
    experts_up(run, r);
    experts_down(run, r);
    visit.give_back(c);
  }
  visit.finish();
  ops::gather_sum(run.ctx, {.y = out,
                            .rows = run.work.rows,
                            .slot_row = run.act.slot_row,
                            .weights = run.act.weights,
                            .accumulate = shared});
}

void moe_recompute(const LayerRun& run) {
  const ExpertVisit visit(run, ExpertPass::Kind::recompute);
  if (run.p.shared_gate_up) dense_up(run, shared_expert(run));
  for (int c = 0; c < visit.chunks(); ++c) experts_up(run, visit.arrive(c));
  visit.finish();
}

// work.drow_weight -> work.dn (added to)
void router_backward(const LayerRun& run, const BalanceScale& balance, bool accumulate) {
  const LayerActivations& a = run.act;
  const Workspace& w = run.work;
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

void moe_backward(const LayerRun& run, const BalanceScale& balance, bool accumulate) {
  const ExpertVisit visit(run, ExpertPass::Kind::backward);
  for (int c = 0; c < visit.chunks(); ++c) {
    const ExpertRows r = visit.arrive(c);
    experts_backward(run, r);
    visit.give_back(c);
    expert_weight_gradients(run, r, accumulate);  // while dx is on its way
  }
  visit.finish();
  ops::gather_sum(
      run.ctx,
      {.y = run.work.dn, .rows = run.work.rows, .slot_row = run.act.slot_row, .weights = {}});
  router_backward(run, balance, accumulate);
  if (run.p.shared_gate_up) dense_backward(run, shared_expert(run), accumulate, true);
}

}  // namespace

ops::RouterMode router_mode(const RouterConfig& config) {
  return {.score = score_function(config.score_function),
          .pre_softmax = config.pre_softmax,
          .norm_topk = config.norm_topk_prob,
          .routed_scale = static_cast<float>(config.routed_scaling_factor)};
}

void ffn_recompute(const LayerRun& run) {
  if (run.p.is_moe()) {
    moe_recompute(run);
  } else {
    dense_up(run, dense_ffn(run));
  }
}

void ffn_forward(const LayerRun& run, const RoutingInput& routing) {
  if (run.p.is_moe()) {
    moe_forward(run, routing);
    return;
  }
  const DenseFfn f = dense_ffn(run);
  dense_up(run, f);
  ops::linear_forward(run.ctx, {.y = run.work.out, .x = f.a, .w = f.down.compute});
}

void ffn_backward(const LayerRun& run, const BalanceScale& balance, bool accumulate) {
  if (run.p.is_moe()) {
    moe_backward(run, balance, accumulate);
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
