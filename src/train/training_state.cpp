#include "training_state.h"

namespace grist::train {

Moments::Moments(const nn::Parameters& parameters, Device device, MemoryLedger* ledger)
    : arena_("optimizer state (fp32)", device, ledger),
      m_offset_(arena_.reserve(DType::f32, {parameters.numel()})),
      v_offset_(arena_.reserve(DType::f32, {parameters.numel()})) {
  arena_.commit();
}

Json to_json(const Counters& c) {
  Json j = Json::object();
  j.set("step", c.step);
  j.set("consumed_samples", c.samples);
  j.set("consumed_tokens", c.tokens);
  j.set("adam_steps", c.adam_steps);
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
          .adam_steps = j.at("adam_steps").as_int(),
          .skipped = j.at("skipped").as_int(),
          .skipped_in_a_row = j.at("skipped_in_a_row").as_int(),
          .validated_step = j.at("validated_step").as_int(),
          .metrics_bytes = static_cast<std::uint64_t>(j.at("metrics_bytes").as_int())};
}

namespace {

// Calls visit(name, view) for everything in a checkpoint, in a fixed order.
template <class F> void for_each_tensor(nn::Model& model, const Moments* moments, F&& visit) {
  for (const nn::NamedTensor& t : model.parameters().tensors()) {
    visit(t.name, t.master);
    if (moments == nullptr) continue;
    visit("optim.m." + t.name, moments->m(t));
    visit("optim.v." + t.name, moments->v(t));
  }
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

std::vector<TensorSlice> checkpoint_slices(nn::Model& model, const Moments& moments) {
  std::vector<TensorSlice> out;
  for_each_tensor(model, &moments, [&](std::string name, const TensorView& v) {
    out.push_back(whole(std::move(name), v));
  });
  return out;
}

std::vector<TensorDestination> checkpoint_destinations(nn::Model& model, const Moments* moments) {
  std::vector<TensorDestination> out;
  for_each_tensor(model, moments, [&](std::string name, const TensorView& v) {
    out.push_back(whole_destination(std::move(name), v));
  });
  return out;
}

}  // namespace grist::train
