#pragma once
// Megatron's batch-size ramp: [start, increment, samples] grows the global batch from `start` to
// global_batch_size in equal increments, each held for samples / number-of-increments samples.
#include <cstdint>
#include <string>

#include "grist/config/config.h"

namespace grist {

// Sequences of the step that begins after `consumed_samples`.
std::int64_t global_batch_size_at(const TrainConfig& train, std::int64_t consumed_samples);

// Steps until at least train_tokens tokens are consumed.
std::int64_t iterations_for_tokens(const TrainConfig& train, std::int64_t seq_length);

// Samples that the first `iters` steps consume.
std::int64_t samples_after(const TrainConfig& train, std::int64_t iters);

// What is wrong with rampup_batch_size beside the other sizes; empty: nothing.
std::string ramp_problem(const TrainConfig& train);

}  // namespace grist
