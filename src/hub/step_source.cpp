// What every export takes from a checkpoint step: tensors, special tokens, refusals.
#include "step_source.h"

#include "grist/core/stop.h"
#include "grist/data/tokenizer.h"

namespace grist::hub {

void stop_if_asked() {
  if (stop_signal() != 0)
    fail(ExitCode::preempted, "stopped by signal {}; nothing was written", stop_signal());
}

namespace {

Json id_of(const std::optional<std::int32_t>& id) {
  return id ? Json(static_cast<std::int64_t>(*id)) : Json();
}

// The spelling of a token in tokenizer_config.json: a string, or an object with `content`.
Json token_of(const Json& config, const char* key, const Tokenizer& tokenizer) {
  const Json* token = config.find(key);
  if (token != nullptr && token->is_object()) token = token->find("content");
  if (token == nullptr || !token->is_string()) return {};
  return id_of(tokenizer.token_id(token->as_string()));
}

}  // namespace

SpecialTokens special_tokens(const CheckpointReader& step) {
  if (const Json* imported = step.state().find("imported")) return special_tokens_of(*imported);
  SpecialTokens out;
  if (!step.has_text("tokenizer.json")) return out;
  step.text("tokenizer.json");  // verified; the tokenizer reads it itself
  const Tokenizer tokenizer = Tokenizer::load(step.path());
  out.bos = id_of(tokenizer.bos_id());
  out.eos = id_of(tokenizer.eos_id());
  if (step.has_text("tokenizer_config.json"))
    out.pad = token_of(Json::parse(step.text("tokenizer_config.json"), "tokenizer_config.json"),
                       "pad_token", tokenizer);
  return out;
}

void refuse_lost_biases(const CheckpointReader& step, Family family, const ModelConfig& c) {
  if (family == Family::glm4_moe) return;
  for (std::int64_t layer = c.first_moe_layer(); layer < c.num_hidden_layers; ++layer) {
    const std::string name = router_bias_name(layer);
    if (step.manifest().find_tensor(name) == nullptr) continue;
    std::vector<float> bias(static_cast<std::size_t>(c.moe.num_experts));
    const TensorDestination to =
        whole_destination(name, TensorView{bias.data(), DType::f32, {c.moe.num_experts}});
    step.read(std::span(&to, 1), {.ignore_prefixes = {""}, .touched_blocks_only = true});
    for (const float b : bias)
      if (b != 0)
        fail(ExitCode::config,
             "model.moe.expert_bias_update_rate: {} holds selection biases that are not zero; "
             "{} has none",
             step.path().string(), word(family));
  }
}

void StepParts::read(std::span<const PartBuffer> wanted) {
  stop_if_asked();
  std::vector<TensorDestination> destinations;
  for (const PartBuffer& w : wanted) {
    destinations.push_back(
        whole_destination(w.part->name, TensorView{w.out.data(), DType::f32, w.part->shape}));
    done_ += w.out.size_bytes();
  }
  step_.read(destinations, {.ignore_prefixes = {""}, .touched_blocks_only = true});
  progress_.update(done_);
}

}  // namespace grist::hub
