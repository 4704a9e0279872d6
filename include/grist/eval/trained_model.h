#pragma once
// A model as a checkpoint holds it, ready to use: weights, configuration and tokenizer, without
// optimizer state.
#include <filesystem>
#include <memory>
#include <optional>

#include "grist/config/config.h"
#include "grist/core/context.h"
#include "grist/data/tokenizer.h"
#include "grist/nn/model.h"

namespace grist::eval {

struct TrainedModel {
  std::filesystem::path checkpoint;  // the step folder that was loaded
  std::int64_t step = 0;
  Config config;
  std::unique_ptr<nn::Model> model;
  std::optional<Tokenizer> tokenizer;  // when the run had one
};

// `path`: a step folder, or a checkpoints or run folder (its newest good step; damaged ones are
// named and passed over). Throws Error{not_found}, Error{bad_data}.
TrainedModel load_trained_model(const Context& ctx, const std::filesystem::path& path);

}  // namespace grist::eval
