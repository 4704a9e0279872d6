#pragma once
// A training run: data, model, optimizer, checkpoints, logs. One step: read the global batch -> for
// each micro-batch forward and backward -> gradient norm, clip, AdamW -> refresh compute weights ->
// log, validate, save.
#include <functional>

#include "grist/comm/communicator.h"
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

// The ranks of a command that trains nothing.
struct Ranks {
  comm::Communicator& world;
  int local_rank = 0;  // on its machine
  int threads = 0;     // of this rank, when `configured` are asked for; Job::threads
};

// Runs `body` on every rank; only rank 0 speaks from then on. An error that is thrown on any rank
// is said once and ends all of them. `threads`: 0, a rank's share of the cores.
ExitCode on_all_ranks(std::int64_t threads, const std::function<void(const Ranks&)>& body);

}  // namespace grist::train
