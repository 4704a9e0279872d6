#include "grist/eval/trained_model.h"

#include <utility>

#include "grist/ckpt/checkpoint.h"
#include "grist/ckpt/device_load.h"
#include "grist/config/load.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/log.h"
#include "grist/nn/choose_device.h"

namespace grist::eval {

namespace {

// The device of out.config and the model on it.
void place_model(TrainedModel& out, const LoadOptions& options) {
  Config& c = out.config;
  const Precision precision = std::exchange(c.precision, Precision::auto_);
  if (c.train.dense_matmul == DenseProducts::cublas)  // training's demand; this may be elsewhere
    c.train.dense_matmul = DenseProducts::auto_;
  const Device device = nn::choose_device(c, options.device_index, "--device cpu").device;
  if (properties(device).bf16) c.precision = precision;
  out.device = std::make_unique<ComputeDevice>(device, options.threads, nullptr, nullptr);
  out.model = std::make_unique<nn::Model>(c.model, device, false, nullptr, nn::ModelPart{},
                                          nn::activation_dtype(c, device));
}

TrainedModel load_step(const CheckpointReader& step, const LoadOptions& options) {
  const std::string where = (step.path() / "config.yaml").string();
  TrainedModel out;
  out.checkpoint = step.path();
  out.step = step.step();
  out.config = saved_config(step.text("config.yaml"), where);
  if (options.device) out.config.device = *options.device;
  if (step.has_text("tokenizer.json")) {
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      if (step.has_text(name)) step.text(name);  // verified; the tokenizer reads them itself
    out.tokenizer = Tokenizer::load(step.path());
  }
  place_model(out, options);
  DeviceLoad load;
  for (const nn::NamedTensor& t : out.model->parameters().tensors())
    load.add(whole_destination(t.name, t.master), out.context().device);
  const std::vector<std::string> biases = out.model->router_bias_names();
  for (std::size_t i = 0; i < biases.size(); ++i) {
    std::vector<float>& bias = out.model->router_state().bias[i];
    const Shape shape = {static_cast<std::int64_t>(bias.size())};
    load.add(whole_destination(biases[i], TensorView{bias.data(), DType::f32, shape}), Device::cpu);
  }
  step.read(load.destinations(),
            {.ignore_prefixes = {"optim.", "balance."}, .touched_blocks_only = true});
  load.finish(out.context());
  out.model->parameters().refresh(out.context());
  return out;
}

}  // namespace

TrainedModel load_trained_model(const std::filesystem::path& path, const LoadOptions& options) {
  for (const StepInfo& s : resolve_steps(path)) {
    try {
      return load_step(CheckpointReader(s.folder), options);
    } catch (const DamagedStep& e) {
      log::warn("checkpoint {} is damaged: {}", s.folder.string(), e.damage().str());
    }
  }
  fail(ExitCode::bad_data, "{}: no usable checkpoint; `grist checkpoint verify` lists the damage",
       path.string());
}

}  // namespace grist::eval
