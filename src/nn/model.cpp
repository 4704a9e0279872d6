#include "grist/nn/model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/ops/optimizer.h"
#include "grist/ops/rope.h"
#include "pass.h"

namespace grist::nn {

std::int64_t expert_capacity(const MoeConfig& moe, std::int64_t tokens) {
  if (!moe.capacity_factor || moe.num_experts == 0) return 0;
  const double rows = *moe.capacity_factor * static_cast<double>(moe.num_experts_per_tok * tokens) /
                      static_cast<double>(moe.num_experts);
  // 1.1 * 3000 / 10 is 330.0000000000001 in binary; the capacity meant is 330.
  return static_cast<std::int64_t>(std::ceil(rows - 1e-9 * rows));
}

namespace {

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

// Without a sink nothing happens between the groups: one graph.
void run_with_graphs(GraphCache& graphs, GraphCache::Key key,
                     const std::function<void(const std::function<void()>&)>& work,
                     GradientSink* sink) {
  key.push_back(sink != nullptr ? 1 : 0);
  if (sink != nullptr) {
    graphs.run(key, work, [&](std::size_t group) { sink->ready(group); });
  } else {
    graphs.run(
        key, [&](const auto&) { work([] {}); }, [](std::size_t) {});
  }
}

}  // namespace

Model::Model(const ModelConfig& config, Device device, bool with_gradients, MemoryLedger* ledger,
             const ModelPart& part, DType dtype)
    : config_(config),
      parameters_(config, device, with_gradients, ledger, part, dtype),
      constants_("constants", device, ledger) {
  const std::int64_t moe_layers = config.num_moe_layers();
  const auto E = static_cast<std::size_t>(config.moe.num_experts);
  for (std::int64_t i = 0; i < moe_layers; ++i) {
    router_state_.bias.emplace_back(E, 0.0F);
    router_state_.load_fraction.emplace_back(E, 1.0F / static_cast<float>(E));
  }
  const Shape shape = {config.max_position_embeddings, config.head_dim};
  const Shape values = {2, moe_layers, config.moe.num_experts};
  const std::size_t offset = constants_.reserve(DType::f32, shape);
  const bool copies = !properties(device).reads_host_memory && values.numel() > 0;
  const std::size_t routers = copies ? constants_.reserve(DType::f32, values) : 0;
  constants_.commit();
  rope_table_ = constants_.view(offset, DType::f32, shape);
  if (copies) router_values_ = constants_.view(routers, DType::f32, values);
  const OwnStream stream(device);  // its end waits, so every stream may read the table
  ops::rope_table(Context(device, stream.get()),
                  {.table = rope_table_, .theta = config.rope_theta});
}

void Model::check(const Activations& act) const {
  check_experts(config_, parameters_.part(), act);
  const std::int64_t sources = act.exchange() != nullptr ? act.exchange()->sources() : 1;
  const std::int64_t apart = parameters_.part().gradient_sources;
  GRIST_CHECK(apart == 1 || apart == sources, "gradients of {} sources, rows of {}", apart,
              sources);
  GRIST_CHECK(act.keep() != Keep::nothing, "activations for evaluation cannot run backward");
}

void Model::forward_backward(const Context& ctx, Activations& act, const MicroBatch& m) {
  check_batch(act, m.batch);
  check(act);
  GRIST_CHECK(m.graphs == nullptr || act.exchange() == nullptr,
              "an expert exchange cannot be recorded");
  const float loss_scale = m.scale.loss_scale;
  const PassInput input = place(ctx, act, m.batch, &loss_scale, router_state_, router_values_);
  Pass pass(ctx, config_, parameters_, router_state_, router_values_, act, input, rope_table_);
  const auto work = [&](const std::function<void()>& ready) {
    if (m.scale.first) clear_added_gradients(ctx);
    pass.forward(expert_capacity(config_.moe, act.tokens()));
    pass.loss(&m.scale);
    pass.backward(m.scale, ready);
  };
  if (m.graphs == nullptr) {
    std::size_t group = 0;
    work([&] {
      if (m.sink != nullptr) m.sink->ready(group++);
    });
  } else {
    run_with_graphs(*m.graphs, pass.graph_key(m.scale), work, m.sink);
  }
  start_copy_out(ctx, m.statistics, act.statistics);
}

void Model::forward_backward(const Context& ctx, Activations& act, const Batch& batch,
                             const StepScale& scale, StepStatistics& statistics,
                             GradientSink* sink) {
  std::vector<std::byte> sums(act.statistics.bytes());
  forward_backward(ctx, act,
                   {.batch = batch, .scale = scale, .statistics = sums.data(), .sink = sink});
  wait(ctx);
  collect(act, scale, sums.data(), statistics);
}

double Model::evaluate(const Context& ctx, Activations& act, const Batch& batch) {
  check_batch(act, batch);
  check_experts(config_, parameters_.part(), act);
  const float loss_scale = 1.0F;
  const PassInput input = place(ctx, act, batch, &loss_scale, router_state_, router_values_);
  Pass pass(ctx, config_, parameters_, router_state_, router_values_, act, input, rope_table_);
  pass.forward(0);
  pass.loss(nullptr);
  return to_host<double>(ctx, act.loss_sum)[0];
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
  for (std::int64_t i = config_.first_moe_layer(); i < config_.num_hidden_layers; ++i) {
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
