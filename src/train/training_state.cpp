#include "training_state.h"

#include "grist/core/device.h"

namespace grist::train {

Json to_json(const Counters& c) {
  Json j = Json::object();
  j.set("step", c.step);
  j.set("consumed_samples", c.samples);
  j.set("consumed_tokens", c.tokens);
  j.set("adam_steps", c.updates);
  j.set("skipped", c.skipped);
  j.set("skipped_in_a_row", c.skipped_in_a_row);
  j.set("validated_step", c.validated_step);
  j.set("metrics_bytes", c.metrics_bytes);
  return j;
}

Counters counters_from_json(const Json& j) {
  return {.step = j.at("step").as_int(),
          .samples = j.at("consumed_samples").as_int(),
          .tokens = j.at("consumed_tokens").as_int(),
          .updates = j.at("adam_steps").as_int(),
          .skipped = j.at("skipped").as_int(),
          .skipped_in_a_row = j.at("skipped_in_a_row").as_int(),
          .validated_step = j.at("validated_step").as_int(),
          .metrics_bytes = static_cast<std::uint64_t>(j.at("metrics_bytes").as_int())};
}

Json layout_json(const parallel::Layout& layout) {
  Json j = Json::object();
  j.set("world", layout.world());
  for (const parallel::Axis& a : layout.axes()) j.set(a.name, a.size);
  return j;
}

namespace {

// Calls visit(name, view) for the router state, which all ranks share.
template <class F> void for_each_router_tensor(nn::Model& model, F&& visit) {
  nn::RouterState& routers = model.router_state();
  const std::vector<std::string> biases = model.router_bias_names();
  for (std::size_t i = 0; i < biases.size(); ++i) {
    const Shape shape = {model.config().moe.num_experts};
    visit(biases[i], TensorView{routers.bias[i].data(), DType::f32, shape});
    visit("balance.load_fraction." + biases[i],
          TensorView{routers.load_fraction[i].data(), DType::f32, shape});
  }
}

}  // namespace

std::vector<TensorSlice> checkpoint_slices(Engine& engine) {
  wait(engine.context());
  std::vector<TensorSlice> out;
  for (const parallel::ShardPiece& p : engine.optimizer().saves()) {
    TensorSlice slice{.name = p.tensor->name,
                      .shape = p.tensor->shape,
                      .part = p.part,
                      .data = p.param.data,
                      .device = engine.context().device};
    out.push_back(slice);
    for (const OptimizerState& s : p.state) {
      slice.name = state_tensor_name(s.name, p.tensor->name);
      slice.data = s.values.data;
      out.push_back(slice);
    }
  }
  if (engine.layout().rank() != 0) return out;
  for_each_router_tensor(engine.model(), [&](std::string name, const TensorView& v) {
    out.push_back(whole(std::move(name), v));
  });
  return out;
}

StateLoad::StateLoad(Engine& engine, bool with_optimizer_state) : engine_(engine) {
  const Device device = engine.context().device;
  for (const nn::NamedTensor& t : engine.model().parameters().tensors())
    load_.add(whole_destination(t.name, t.master), device);
  for_each_router_tensor(engine.model(), [&](std::string name, const TensorView& v) {
    load_.add(whole_destination(std::move(name), v), Device::cpu);
  });
  if (!with_optimizer_state) return;
  for (const parallel::ShardPiece& p : engine.optimizer().holds()) {
    for (const OptimizerState& s : p.state)
      load_.add({.name = state_tensor_name(s.name, p.tensor->name),
                 .shape = p.tensor->shape,
                 .part = p.part,
                 .data = s.values.data},
                device);
  }
}

}  // namespace grist::train
