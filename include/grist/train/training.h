#pragma once
// A training run: data, model, optimizer, checkpoints, logs. One step: read the global batch -> for
// each micro-batch forward and backward -> gradient norm, clip, AdamW -> refresh compute weights ->
// log, validate, save.
#include <functional>

#include "grist/config/load.h"
#include "grist/core/error.h"

namespace grist::train {

struct TrainOptions {
  bool dry_run = false;         // set everything up, print configuration, sizes and memory, run one
                                // micro-batch, write nothing
  std::int64_t stop_after = 0;  // step after which the run ends; 0: train_iters
  bool save_at_end = true;
};

// Connects the ranks of the job, calls `load` on each, and runs until train_iters, a stop signal or
// a time limit. Returns ok or preempted (saved, start again); throws Error otherwise, or, when
// other ranks cannot be told, ends the process.
ExitCode run_training(const std::function<LoadedConfig()>& load, const TrainOptions& options);

}  // namespace grist::train
