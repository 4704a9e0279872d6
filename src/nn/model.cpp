#include "grist/nn/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "block.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/ops/cross_entropy.h"
#include "grist/ops/embedding.h"
#include "grist/ops/norm.h"
#include "grist/ops/optimizer.h"
#include "grist/ops/rope.h"

namespace grist::nn {

void StepStatistics::reset() {
  loss_sum = 0;
  for (LayerStatistics& l : layers) {
    l.counts.assign(l.counts.size(), 0);
    l.tokens = l.dropped = 0;
    l.aux_loss = l.z_loss = l.entropy_sum = l.top1_share_sum = 0;
  }
}

double StepStatistics::aux_loss() const {
  double sum = 0;
  for (const LayerStatistics& l : layers) sum += l.aux_loss;
  return sum;
}

double StepStatistics::z_loss() const {
  double sum = 0;
  for (const LayerStatistics& l : layers) sum += l.z_loss;
  return sum;
}

namespace {

enum class RouterValue : std::uint8_t { bias, load_fraction };

// One layer's values as operations read them: on the CPU where they lie, else the device's copy.
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

std::int64_t expert_capacity(const MoeConfig& moe, std::int64_t tokens) {
  if (!moe.capacity_factor || moe.num_experts == 0) return 0;
  const double rows = *moe.capacity_factor * static_cast<double>(moe.num_experts_per_tok * tokens) /
                      static_cast<double>(moe.num_experts);
  // 1.1 * 3000 / 10 is 330.0000000000001 in binary; the capacity meant is 330.
  return static_cast<std::int64_t>(std::ceil(rows - 1e-9 * rows));
}

namespace {

// The batch where the device reads it. Its copies are made before this returns.
Batch place_batch(const Context& ctx, const Activations& act, const Batch& batch) {
  if (ctx.device == Device::cpu) return batch;
  const auto place = [&](const TensorView& room, const ConstTensorView& host) {
    const TensorView there = rows(room, 0, host.numel());
    copy_in(ctx, there, host.data);
    return there;
  };
  return {place(act.ids, batch.ids), place(act.targets, batch.targets),
          place(act.positions, batch.positions), place(act.cu_seqlens, batch.cu_seqlens)};
}

// One pass over the layers with everything that stays the same during it.
class Pass {
 public:
  Pass(const Context& ctx, const ModelConfig& config, const Parameters& parameters,
       const RouterState& routers, const TensorView& router_values, Activations& act,
       const Batch& batch, ConstTensorView rope_table)
      : ctx_(ctx),
        config_(config),
        parameters_(parameters),
        routers_(routers),
        router_values_(router_values),
        act_(act),
        batch_(place_batch(ctx, act, batch)),
        attention_{batch_.positions, batch_.cu_seqlens, batch_.cu_seqlens, rope_table} {}

  void forward(std::int64_t capacity) {
    ops::embedding_forward(
        ctx_, {.y = act_.layers[0].h_in, .table = parameters_.embedding.master, .ids = batch_.ids});
    Residual residual;
    for (std::size_t i = 0; i < act_.layers.size(); ++i) {
      const LayerRun run = layer(i);
      input_norm(run, residual);
      attention_forward(run, attention_);
      mid_norm(run, true);
      ffn_forward(run, routing(i, capacity));
      residual = {act_.work.out, act_.layers[i].h_mid};
    }
    ops::rms_norm_forward(ctx_, {.y = act_.n_final,
                                 .h = act_.h_final,
                                 .rstd = act_.rstd_final,
                                 .x = residual.x,
                                 .residual = residual.residual,
                                 .w = parameters_.final_norm.master,
                                 .eps = static_cast<float>(config_.rms_norm_eps)});
  }

  // act.loss_sum; with gradients also act.dn_final and the output layer's gradient.
  void loss(const StepScale* scale) {
    const Parameter& out = parameters_.output();
    ops::linear_cross_entropy(ctx_, {.losses = act_.losses,
                                     .dx = scale != nullptr ? act_.dn_final : TensorView{},
                                     .dw = scale != nullptr ? out.grad : TensorView{},
                                     .x = act_.n_final,
                                     .w = out.compute,
                                     .targets = batch_.targets,
                                     .grad_scale = scale != nullptr ? scale->loss_scale : 1.0F,
                                     .accumulate = scale != nullptr && !scale->first});
    ops::sum(ctx_, {.sum = act_.loss_sum, .x = act_.losses});
  }
  double loss_sum() const { return to_host<double>(ctx_, act_.loss_sum)[0]; }

  void backward(const StepScale& scale, GradientSink* sink) {
    std::size_t group = 0;
    const auto ready = [&] {
      if (sink != nullptr) sink->ready(group++);
    };

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
    ops::embedding_backward(ctx_,
                            {.dtable = parameters_.embedding.grad, .dy = w.dh, .ids = batch_.ids});
    ready();
  }

  // Adds this micro-batch to the step's statistics. Waits for the device.
  void collect(const StepScale& scale, StepStatistics& statistics) const {
    statistics.loss_sum += loss_sum();
    for (std::size_t i = first_moe(); i < act_.layers.size(); ++i) {
      collect_layer(i, scale, statistics.layers[i - first_moe()]);
    }
  }

 private:
  std::size_t first_moe() const {
    return config_.moe.num_experts == 0
               ? act_.layers.size()
               : static_cast<std::size_t>(config_.moe.first_k_dense_replace);
  }

  LayerRun layer(std::size_t i) const {
    return {.ctx = ctx_,
            .config = config_,
            .p = parameters_.layers[i],
            .act = act_.layers[i],
            .work = act_.work,
            .N = act_.tokens(),
            .layer = i,
            .exchange = act_.exchange()};
  }

  RoutingInput routing(std::size_t i, std::int64_t capacity) const {
    if (i < first_moe()) return {};
    return {selection_bias(routers_, router_values_, i - first_moe()), capacity};
  }

  // Makes again what the policy did not keep. The same operations on the same inputs: the same
  // bits.
  void recompute(std::size_t i) const {
    if (act_.keep() == Keep::everything) return;
    const LayerRun run = layer(i);
    input_norm(run, {});
    if (act_.keep() == Keep::layer_inputs) attention_forward(run, attention_);
    mid_norm(run, act_.keep() == Keep::layer_inputs);
    ffn_recompute(run);
  }

  BalanceScale balance(std::size_t i, const StepScale& scale) const {
    if (i < first_moe()) return {};
    const MoeConfig& moe = config_.moe;
    const LayerActivations& a = act_.layers[i];
    BalanceScale b;
    const auto segments = static_cast<double>(a.counts.shape[0]);
    const double weight = scale.micro_batch_weight;
    b.aux_scale = static_cast<float>(moe.aux_loss_coeff / segments * weight);
    b.z_scale = static_cast<float>(moe.z_loss_coeff / static_cast<double>(act_.tokens()) * weight);
    if (moe.aux_loss_coeff == 0) return b;
    if (moe.aux_loss_scope == "global_batch") {
      b.load_fraction = reshape(router_value(routers_.load_fraction, router_values_,
                                             RouterValue::load_fraction, i - first_moe()),
                                {1, moe.num_experts});
    } else {
      b.load_fraction = a.fractions;
    }
    return b;
  }

  // The fractions that balance() gives to the device, here.
  std::vector<float> load_fraction(std::size_t i) const {
    if (config_.moe.aux_loss_coeff == 0) return {};
    if (config_.moe.aux_loss_scope == "global_batch")
      return routers_.load_fraction[i - first_moe()];
    return to_host<float>(ctx_, act_.layers[i].fractions);
  }

  void collect_layer(std::size_t i, const StepScale& scale, LayerStatistics& s) const {
    const LayerActivations& a = act_.layers[i];
    const std::int64_t E = config_.moe.num_experts, S = a.counts.shape[0];
    const auto counts = to_host<std::int64_t>(ctx_, a.counts);
    const auto probs = to_host<double>(ctx_, a.prob_sums);
    const auto scalars = to_host<double>(ctx_, a.scalars);
    const auto kept = to_host<std::int32_t>(ctx_, rows(a.expert_offsets, E, E + 1));
    const std::vector<float> fractions = load_fraction(i);
    const double segment_tokens = static_cast<double>(act_.tokens()) / static_cast<double>(S);
    double f_times_p = 0;
    for (std::size_t j = 0; j < counts.size(); ++j) {
      s.counts[j % static_cast<std::size_t>(E)] += counts[j];
      if (!fractions.empty())
        f_times_p += static_cast<double>(fractions[j]) * probs[j] / segment_tokens;
    }
    const double weight = scale.micro_batch_weight;
    s.aux_loss += weight * config_.moe.aux_loss_coeff * static_cast<double>(E) * f_times_p /
                  static_cast<double>(S);
    s.z_loss += weight * config_.moe.z_loss_coeff * scalars[0] / static_cast<double>(act_.tokens());
    s.entropy_sum += scalars[1];
    s.top1_share_sum += scalars[2];
    s.tokens += act_.tokens();
    s.dropped += a.row_token.numel() - kept[0];
  }

  const Context& ctx_;
  const ModelConfig& config_;
  const Parameters& parameters_;
  const RouterState& routers_;
  const TensorView& router_values_;
  Activations& act_;
  Batch batch_;
  AttentionInput attention_;
};

void check_batch(const Activations& act, const Batch& batch) {
  GRIST_CHECK(batch.ids.numel() == act.tokens(), "batch of {} tokens, activations for {}",
              batch.ids.numel(), act.tokens());
}

// The experts held here and those that the exchange brings rows for are the same.
void check_experts(const ModelConfig& config, const ModelPart& part, const Activations& act) {
  const ExpertExchange* exchange = act.exchange();
  const std::int64_t first = exchange != nullptr ? exchange->first_expert() : 0;
  const std::int64_t count = exchange != nullptr ? exchange->num_experts() : config.moe.num_experts;
  GRIST_CHECK(part.first_expert == first && part.num_experts == count,
              "the model holds {} experts from {}, the activations are for {} from {}",
              part.num_experts, part.first_expert, count, first);
}

}  // namespace

Model::Model(const ModelConfig& config, Device device, bool with_gradients, MemoryLedger* ledger,
             const ModelPart& part, DType dtype)
    : config_(config),
      parameters_(config, device, with_gradients, ledger, part, dtype),
      constants_("constants", device, ledger) {
  const std::int64_t moe_layers =
      config.moe.num_experts == 0 ? 0 : config.num_hidden_layers - config.moe.first_k_dense_replace;
  const auto E = static_cast<std::size_t>(config.moe.num_experts);
  for (std::int64_t i = 0; i < moe_layers; ++i) {
    router_state_.bias.emplace_back(E, 0.0F);
    router_state_.load_fraction.emplace_back(E, 1.0F / static_cast<float>(E));
  }
  const Shape shape = {config.max_position_embeddings, config.head_dim};
  const Shape values = {2, moe_layers, config.moe.num_experts};
  const std::size_t offset = constants_.reserve(DType::f32, shape);
  const bool copies = device != Device::cpu && values.numel() > 0;
  const std::size_t routers = copies ? constants_.reserve(DType::f32, values) : 0;
  constants_.commit();
  rope_table_ = constants_.view(offset, DType::f32, shape);
  if (copies) router_values_ = constants_.view(routers, DType::f32, values);
  Context here;
  here.device = device;
  ops::rope_table(here, {.table = rope_table_, .theta = config.rope_theta});
}

void Model::forward_backward(const Context& ctx, Activations& act, const Batch& batch,
                             const StepScale& scale, StepStatistics& statistics,
                             GradientSink* sink) {
  check_batch(act, batch);
  check_experts(config_, parameters_.part(), act);
  const std::int64_t sources = act.exchange() != nullptr ? act.exchange()->sources() : 1;
  const std::int64_t apart = parameters_.part().gradient_sources;
  GRIST_CHECK(apart == 1 || apart == sources, "gradients of {} sources, rows of {}", apart,
              sources);
  GRIST_CHECK(act.keep() != Keep::nothing, "activations for evaluation cannot run backward");
  if (statistics.layers.size() != router_state_.bias.size()) {
    statistics.layers.resize(router_state_.bias.size());
    for (LayerStatistics& l : statistics.layers)
      l.counts.assign(static_cast<std::size_t>(config_.moe.num_experts), 0);
  }
  if (scale.first) clear_added_gradients(ctx);
  place_router_state(ctx);
  Pass pass(ctx, config_, parameters_, router_state_, router_values_, act, batch, rope_table_);
  pass.forward(expert_capacity(config_.moe, act.tokens()));
  pass.loss(&scale);
  pass.backward(scale, sink);
  pass.collect(scale, statistics);
}

double Model::evaluate(const Context& ctx, Activations& act, const Batch& batch) {
  check_batch(act, batch);
  check_experts(config_, parameters_.part(), act);
  place_router_state(ctx);
  Pass pass(ctx, config_, parameters_, router_state_, router_values_, act, batch, rope_table_);
  pass.forward(0);
  pass.loss(nullptr);
  return pass.loss_sum();
}

// They may have changed since the last call: by update_router_state() or a load.
void Model::place_router_state(const Context& ctx) const {
  if (!router_values_) return;
  std::vector<float> values;
  for (const auto* of_layers : {&router_state_.bias, &router_state_.load_fraction})
    for (const std::vector<float>& v : *of_layers) values.insert(values.end(), v.begin(), v.end());
  copy_in(ctx, router_values_, values.data());
}

// Matrices are overwritten by the first micro-batch; norms and an untied embedding are only ever
// added to.
void Model::clear_added_gradients(const Context& ctx) {
  const auto clear = [&](const Parameter& p) {
    ops::fill(ctx, {.x = reshape(p.grad, {p.grad.numel()}), .value = 0.0F});
  };
  for (const LayerParameters& l : parameters_.layers) {
    clear(l.input_norm);
    clear(l.post_attention_norm);
    if (l.q_norm) clear(*l.q_norm);
    if (l.k_norm) clear(*l.k_norm);
  }
  clear(parameters_.final_norm);
  if (parameters_.head) clear(parameters_.embedding);
}

std::vector<std::string> Model::router_bias_names() const {
  std::vector<std::string> names;
  for (std::int64_t i = config_.moe.first_k_dense_replace;
       i < config_.num_hidden_layers && config_.moe.num_experts > 0; ++i) {
    names.push_back("model.layers." + std::to_string(i) + ".mlp.gate.e_score_correction_bias");
  }
  return names;
}

void Model::update_router_state(const StepStatistics& statistics) {
  const double rate = config_.moe.expert_bias_update_rate;
  for (std::size_t l = 0; l < statistics.layers.size(); ++l) {
    const std::vector<std::int64_t>& counts = statistics.layers[l].counts;
    const auto total =
        static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
    if (total == 0) continue;
    const double mean = total / static_cast<double>(counts.size());
    for (std::size_t e = 0; e < counts.size(); ++e) {
      const auto load = static_cast<double>(counts[e]);
      router_state_.load_fraction[l][e] = static_cast<float>(load / total);
      const double sign = load < mean ? 1.0 : (load > mean ? -1.0 : 0.0);
      if (rate > 0) router_state_.bias[l][e] += static_cast<float>(rate * sign);
    }
  }
}

}  // namespace grist::nn
