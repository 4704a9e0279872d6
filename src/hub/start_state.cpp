// The state of a run that has not begun, and of its routers.
#include "start_state.h"

#include <exception>

#include "grist/core/error.h"

namespace grist::hub {

Json initial_state(const std::string& tokenizer) {
  Json counters = Json::object();
  for (const char* key : {"step", "consumed_samples", "consumed_tokens", "adam_steps", "skipped",
                          "skipped_in_a_row", "metrics_bytes"})
    counters.set(key, 0);
  counters.set("validated_step", -1);
  Json state = Json::object();
  state.set("counters", std::move(counters));
  if (!tokenizer.empty()) state.set("tokenizer", tokenizer);
  return state;
}

void save_first_step(const std::filesystem::path& run, FirstStep step) {
  std::exception_ptr failure;
  Json layout = Json::object();
  layout.set("world", 1);
  const SaveRequest request{.step = 0,
                            .layout = std::move(layout),
                            .state = std::move(step.state),
                            .shards = {std::move(step.slices)},
                            .texts = std::move(step.texts),
                            .source = [&](const std::string& name, const auto& append) {
                              try {
                                step.source(name, append);
                              } catch (...) {
                                failure = std::current_exception();
                                throw;
                              }
                            }};
  try {
    CheckpointFolder(run / "checkpoints", new_uuid()).save(request);
  } catch (const Error&) {
    if (failure) std::rethrow_exception(failure);
    throw;
  }
}

StartOfRouters::StartOfRouters(const ModelConfig& model) : model_(model) {
  const auto E = static_cast<std::size_t>(model.moe.num_experts);
  zeros_.assign(E, 0.0F);
  even_.assign(E, E == 0 ? 0.0F : 1.0F / static_cast<float>(E));
}

void StartOfRouters::add(std::vector<TensorSlice>& slices,
                         const std::function<bool(const std::string& name)>& has) const {
  const Shape shape = {model_.moe.num_experts};
  for (std::int64_t i = model_.first_moe_layer(); i < model_.num_hidden_layers; ++i) {
    const std::string bias = router_bias_name(i);
    if (!has(bias)) slices.push_back(whole(bias, {zeros_.data(), DType::f32, shape}));
    slices.push_back(whole("balance.load_fraction." + bias, {even_.data(), DType::f32, shape}));
  }
}

}  // namespace grist::hub
