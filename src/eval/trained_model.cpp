#include "grist/eval/trained_model.h"

#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "grist/core/check.h"

namespace grist::eval {

TrainedModel load_trained_model(const Context& ctx, const std::filesystem::path& path) {
  const std::optional<CheckpointReader> step =
      find_newest_good(resolve_steps(path), VerifyDepth::sizes);
  if (!step)
    fail(ExitCode::bad_data, "{}: no usable checkpoint; `grist checkpoint verify` lists the damage",
         path.string());
  const std::string where = (step->path() / "config.yaml").string();
  TrainedModel out;
  out.checkpoint = step->path();
  out.step = step->step();
  out.config = parse_config(step->text("config.yaml"), where, {}).config;
  if (step->has_text("tokenizer.json")) {
    out.tokenizer =
        Tokenizer::parse(step->text("tokenizer.json"), (step->path() / "tokenizer.json").string());
  }
  out.model = std::make_unique<nn::Model>(out.config.model, Device::cpu, false, nullptr);
  std::vector<TensorDestination> wanted;
  for (const nn::NamedTensor& t : out.model->parameters().tensors())
    wanted.push_back(whole_destination(t.name, t.master));
  const std::vector<std::string> biases = out.model->router_bias_names();
  for (std::size_t i = 0; i < biases.size(); ++i) {
    std::vector<float>& bias = out.model->router_state().bias[i];
    wanted.push_back(whole_destination(
        biases[i], TensorView{bias.data(), DType::f32, {static_cast<std::int64_t>(bias.size())}}));
  }
  step->read(wanted, {.ignore_prefixes = {"optim.", "balance."}});
  out.model->parameters().refresh(ctx);
  return out;
}

}  // namespace grist::eval
