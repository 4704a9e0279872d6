#pragma once
// Proofs on the user's own configuration: that a parallel layout computes what one rank computes,
// and that a run which was killed goes on as if nothing had happened. docs/parallelism.md shows
// both.
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "grist/config/load.h"
#include "grist/core/error.h"
#include "grist/nn/statistics.h"

namespace grist::train {

struct VerifyParallelOptions {
  std::int64_t steps = 3;
  // The reference: one rank that takes the whole batch alone; or, for models that one rank cannot
  // hold, all ranks with expert_model_parallel_size 1 and zero_stage 0.
  bool reference_all_ranks = false;
};
// Trains a few steps from the same weights on both layouts and compares losses, gradient norms and
// every gradient of the first step. Writes nothing. ok, or ExitCode::numeric when they differ by
// more than the bound (nothing at all with deterministic: elastic).
ExitCode verify_parallel(const std::function<LoadedConfig()>& load,
                         const VerifyParallelOptions& options);

struct VerifyResumeOptions {
  std::int64_t steps = 20;
};
// Trains `steps` steps straight, and again with a checkpoint in the middle and an end without a
// save one step later, resumed in the same process; metrics and the last checkpoint's tensors must
// be the same bits. Works in the folder <run.dir>.verify, which is removed when they are.
ExitCode verify_resume(const std::function<LoadedConfig()>& load,
                       const VerifyResumeOptions& options);

// ---- what verify_parallel compares -----------------------------------------------------------

struct StepNumbers {
  double loss = 0;
  std::vector<nn::LossTerm> terms;
  double grad_norm = 0;
};

// Gradients of the first step under their global names, flattened, in the order of the backward
// pass.
struct NamedGradient {
  std::string name;
  std::vector<float> values;
};

struct TrialResult {
  std::vector<StepNumbers> steps;
  std::vector<NamedGradient> gradients;
};

struct Agreement {
  bool ok = false;
  std::string text;  // several lines
};
// `exact`: every bit must be the same.
Agreement compare_trials(const TrialResult& reference, const TrialResult& trial, bool exact);

}  // namespace grist::train
