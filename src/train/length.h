#pragma once
// How long a run is, from what it has consumed already: with train_tokens the steps still to come
// are those that the rest of the budget takes, whatever batches the steps behind had.
#include <cstdint>

#include "grist/config/load.h"
#include "training_state.h"

namespace grist::train {

struct Length {
  std::int64_t train_iters = 0;  // the last step
  std::int64_t samples = 0;      // consumed by then
  OptimConfig schedule{};        // what learning rates are made from
};

// Error{config} when the warm-up and the final decay do not fit into it.
Length run_length(const LoadedConfig& loaded, const Counters& done);

// Why nothing is left to train, and what to do for more. `done` is at or beyond the last step.
std::string nothing_left(const Config& config, const Counters& done);

}  // namespace grist::train
