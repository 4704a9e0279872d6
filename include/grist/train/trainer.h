#pragma once
// A training run: data, model, optimizer, checkpoints, logs. One step: read the global batch -> for
// each micro-batch forward and backward -> gradient norm, clip, AdamW -> refresh compute weights ->
// log, validate, save.
#include <string>

#include "grist/config/load.h"
#include "grist/core/error.h"

namespace grist::train {

struct TrainOptions {
  bool dry_run = false;  // set everything up, print configuration, sizes and memory, run one
                         // micro-batch, write nothing
};

// Runs until train_iters, a stop signal or a time limit. Returns ok or preempted (saved, start
// again); throws Error otherwise.
ExitCode run_training(LoadedConfig config, const TrainOptions& options);

}  // namespace grist::train
