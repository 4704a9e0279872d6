#pragma once
// Megatron's batch-size ramp: [start, increment, samples] grows the global batch from `start` to
// global_batch_size in equal increments, each held for samples / number-of-increments samples.
#include <cstdint>
#include <string>
#include <vector>

#include "grist/config/config.h"

namespace grist {

// Sequences of the step that begins after `consumed_samples`.
std::int64_t global_batch_size_at(const TrainConfig& train, std::int64_t consumed_samples);

// What the steps behind have consumed, whatever batch sizes they had.
struct Consumed {
  std::int64_t steps = 0;
  std::int64_t samples = 0;
  std::int64_t tokens = 0;
};

// The step after which at least train_tokens tokens are consumed; never below done.steps.
std::int64_t iterations_for_tokens(const TrainConfig& train, std::int64_t seq_length,
                                   const Consumed& done = {});

// Samples that the steps up to `iters` consume, those behind included.
std::int64_t samples_after(const TrainConfig& train, std::int64_t iters, const Consumed& done = {});

// Batch sizes of the steps still to come, ascending; global_batch_size is the last.
std::vector<std::int64_t> batch_sizes_from(const TrainConfig& train, std::int64_t consumed_samples);

// What is wrong with rampup_batch_size beside the other sizes; empty: nothing.
std::string ramp_problem(const TrainConfig& train);

}  // namespace grist
