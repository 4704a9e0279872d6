#include "grist/eval/trained_model.h"

#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "grist/core/check.h"
#include "grist/core/log.h"

namespace grist::eval {

namespace {

TrainedModel load_step(const Context& ctx, const CheckpointReader& step) {
  const std::string where = (step.path() / "config.yaml").string();
  TrainedModel out;
  out.checkpoint = step.path();
  out.step = step.step();
  out.config = parse_config(step.text("config.yaml"), where, {}).config;
  if (step.has_text("tokenizer.json")) {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      if (step.has_text(name)) step.text(name);  // verified; the tokenizer reads them itself
    out.tokenizer = Tokenizer::load(step.path());
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
  step.read(wanted, {.ignore_prefixes = {"optim.", "balance."}, .touched_blocks_only = true});
  out.model->parameters().refresh(ctx);
  return out;
}

}  // namespace

TrainedModel load_trained_model(const Context& ctx, const std::filesystem::path& path) {
  for (const StepInfo& s : resolve_steps(path)) {
    try {
      return load_step(ctx, CheckpointReader(s.folder));
    } catch (const DamagedStep& e) {
      log::warn("checkpoint {} is damaged: {}", s.folder.string(), e.damage().str());
    }
  }
  fail(ExitCode::bad_data, "{}: no usable checkpoint; `grist checkpoint verify` lists the damage",
       path.string());
}

}  // namespace grist::eval
