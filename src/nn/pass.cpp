#include "pass.h"

#include <algorithm>
#include <bit>

#include "grist/core/device.h"
#include "grist/ops/cross_entropy.h"
#include "grist/ops/embedding.h"
#include "grist/ops/norm.h"
#include "grist/ops/optimizer.h"

namespace grist::nn {

namespace {

enum class RouterValue : std::uint8_t { bias, load_fraction };

// One layer's values as operations read them: where they lie, or the device's copy.
ConstTensorView router_value(const std::vector<std::vector<float>>& host, const TensorView& device,
                             RouterValue what, std::size_t layer) {
  const auto E = static_cast<std::int64_t>(host[layer].size());
  if (!device) return {host[layer].data(), DType::f32, {E}};
  const auto row = static_cast<std::int64_t>(layer);
  const std::int64_t place = static_cast<std::int64_t>(what) * device.shape[1] + row;
  return reshape(rows(reshape(device, {2 * device.shape[1], E}), place, place + 1), {E});
}

}  // namespace

ConstTensorView selection_bias(const RouterState& routers, const TensorView& device,
                               std::size_t layer) {
  const std::vector<float>& bias = routers.bias[layer];
  if (std::all_of(bias.begin(), bias.end(), [](float b) { return b == 0.0F; })) return {};
  return router_value(routers.bias, device, RouterValue::bias, layer);
}

std::vector<float> router_values(const RouterState& routers) {
  std::vector<float> values;
  for (const auto* of_layers : {&routers.bias, &routers.load_fraction})
    for (const std::vector<float>& v : *of_layers) values.insert(values.end(), v.begin(), v.end());
  return values;
}

PassInput place(const Context& ctx, Activations& act, const Batch& batch, const float* loss_scale,
                const RouterState& routers, const TensorView& on_device) {
  if (properties(ctx.device).reads_host_memory) return {batch, {loss_scale, DType::f32, {1}}};
  Uploads& uploads = *act.uploads;
  uploads.begin();
  const std::vector<float> values = router_values(routers);
  if (on_device) uploads.add(ctx, on_device, values.data());
  const auto add = [&](const TensorView& room, const ConstTensorView& host) {
    const TensorView there = rows(room, 0, host.numel());
    uploads.add(ctx, there, host.data);
    return there;
  };
  const auto* ends = batch.cu_seqlens.as<std::int32_t>();
  std::vector<std::int32_t> padded(ends, ends + batch.cu_seqlens.numel());
  padded.resize(std::bit_ceil(padded.size() - 1) + 1, padded.back());
  const ConstTensorView boundaries(padded.data(), DType::i32,
                                   {static_cast<std::int64_t>(padded.size())});
  const PassInput input = {{add(act.ids, batch.ids), add(act.targets, batch.targets),
                            add(act.positions, batch.positions), add(act.cu_seqlens, boundaries)},
                           add(act.loss_scale, {loss_scale, DType::f32, {1}})};
  uploads.end(ctx);
  return input;
}

GraphCache::Key Pass::graph_key(const StepScale& scale) const {
  GraphCache::Key key = {scale.first ? 1 : 0, std::bit_cast<std::int32_t>(scale.micro_batch_weight),
                         input_.batch.cu_seqlens.numel()};
  for (std::size_t i = first_moe(); i < act_.layers.size(); ++i)
    key.push_back(routing(i, 0).bias ? 1 : 0);
  return key;
}

void Pass::forward(std::int64_t capacity) {
  ops::embedding_forward(
      ctx_,
      {.y = act_.layers[0].h_in, .table = parameters_.embedding.master, .ids = input_.batch.ids});
  Residual residual;
  for (std::size_t i = 0; i < act_.layers.size(); ++i) {
    const LayerRun run = layer(i);
    input_norm(run, residual);
    attention_forward(run, attention_);
    mid_norm(run, true);
    ffn_forward(run, routing(i, capacity));
    residual = {act_.work.out, act_.layers[i].h_mid};
  }
  final_norm(ctx_, config_, parameters_, act_, residual);
}

void Pass::loss(const StepScale* scale) {
  const Parameter& out = parameters_.output();
  const bool head_z = scale != nullptr && config_.lm_head_z_loss_coeff != 0;
  ops::linear_cross_entropy(
      ctx_, {.losses = act_.losses,
             .z = head_z ? act_.head_z : TensorView{},
             .dx = scale != nullptr ? act_.dn_final : TensorView{},
             .dw = scale != nullptr ? out.grad : TensorView{},
             .x = act_.n_final,
             .w = out.compute,
             .targets = input_.batch.targets,
             .grad_scale = scale != nullptr ? input_.loss_scale : ConstTensorView{},
             .z_coeff = head_z ? static_cast<float>(config_.lm_head_z_loss_coeff) : 0.0F,
             .accumulate = scale != nullptr && !scale->first});
  ops::sum(ctx_, {.sum = act_.loss_sum, .x = act_.losses});
  if (head_z) ops::sum(ctx_, {.sum = act_.head_z_sum, .x = act_.head_z});
}

void Pass::backward(const StepScale& scale, const std::function<void()>& ready) {
  const Workspace& w = act_.work;
  ops::rms_norm_backward(ctx_, {.dh = w.dh,
                                .dw = parameters_.final_norm.grad,
                                .dy = act_.dn_final,
                                .dresidual = {},
                                .h = act_.h_final,
                                .rstd = act_.rstd_final,
                                .w = parameters_.final_norm.master});
  ready();
  for (std::size_t i = act_.layers.size(); i-- > 0;) {
    recompute(i);
    ffn_backward(layer(i), balance(i, scale), !scale.first);
    attention_backward(layer(i), attention_, !scale.first);
    ready();
  }
  ops::embedding_backward(
      ctx_, {.dtable = parameters_.embedding.grad, .dy = w.dh, .ids = input_.batch.ids});
  ready();
}

std::size_t Pass::first_moe() const {
  return static_cast<std::size_t>(config_.first_moe_layer());
}

LayerRun Pass::layer(std::size_t i) const {
  return {.ctx = ctx_,
          .config = config_,
          .p = parameters_.layers[i],
          .act = act_.layers[i],
          .work = act_.work,
          .N = act_.tokens(),
          .layer = i,
          .exchange = act_.exchange()};
}

RoutingInput Pass::routing(std::size_t i, std::int64_t capacity) const {
  if (i < first_moe()) return {};
  return {selection_bias(routers_, router_values_, i - first_moe()), capacity};
}

// Makes again what the policy did not keep. The same operations on the same inputs: the same
// bits.
void Pass::recompute(std::size_t i) const {
  if (act_.keep() == Keep::everything) return;
  const LayerRun run = layer(i);
  input_norm(run, {});
  if (act_.keep() == Keep::layer_inputs) attention_forward(run, attention_);
  mid_norm(run, act_.keep() == Keep::layer_inputs);
  ffn_recompute(run);
}

BalanceScale Pass::balance(std::size_t i, const StepScale& scale) const {
  if (i < first_moe()) return {};
  const MoeConfig& moe = config_.moe;
  const LayerActivations& a = act_.layers[i];
  BalanceScale b;
  const auto segments = static_cast<double>(a.counts.shape[0]);
  const double weight = scale.micro_batch_weight;
  b.aux_scale = static_cast<float>(moe.aux_loss_coeff / segments * weight);
  b.z_scale = static_cast<float>(moe.z_loss_coeff / static_cast<double>(act_.tokens()) * weight);
  if (moe.aux_loss_coeff == 0) return b;
  if (moe.aux_loss_scope == AuxLossScope::global_batch) {
    b.load_fraction = reshape(router_value(routers_.load_fraction, router_values_,
                                           RouterValue::load_fraction, i - first_moe()),
                              {1, moe.num_experts});
  } else {
    b.load_fraction = a.fractions;
  }
  return b;
}

}  // namespace grist::nn
