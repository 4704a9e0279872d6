#pragma once
// A model as a checkpoint holds it, ready to use: weights, configuration and tokenizer, without
// optimizer state.
#include <filesystem>
#include <memory>
#include <optional>

#include "grist/config/config.h"
#include "grist/core/compute_device.h"
#include "grist/data/tokenizer.h"
#include "grist/nn/model.h"

namespace grist::eval {

struct LoadOptions {
  int threads = 0;                       // 0: one per core
  int device_index = 0;                  // which of the machine's devices, modulo their number
  std::optional<WantedDevice> device{};  // nothing: what the run's configuration says
};

struct TrainedModel {
  std::filesystem::path checkpoint;  // the step folder that was loaded
  std::int64_t step = 0;
  Config config;
  std::unique_ptr<ComputeDevice> device;  // where the model lies and computes
  std::unique_ptr<nn::Model> model;
  std::optional<Tokenizer> tokenizer;  // when the run had one
  const Context& context() const { return device->context(); }
};

// `path`: a step folder, or a checkpoints or run folder (its newest good step; damaged ones are
// named and passed over). It is put on the device that the run's configuration names, in fp32 or
// bf16 as training there would choose; a run in bf16 is taken in fp32 where the device has no bf16.
// Throws Error{not_found}, Error{bad_data}, Error{device_unavailable}.
TrainedModel load_trained_model(const std::filesystem::path& path, const LoadOptions& options = {});

}  // namespace grist::eval
