#pragma once
// Some steps of training without files: what `grist verify parallel` and the tests compare between
// layouts.
#include <functional>

#include "grist/comm/communicator.h"
#include "grist/config/config.h"
#include "grist/data/dataset.h"
#include "grist/train/verify.h"

namespace grist::train {

// Samples [first, first + count) of the run.
using ReadSamples = std::function<void(std::int64_t first, std::int64_t count, Batch& out)>;

// `steps` steps of `config` on the ranks of `world`, from the seed's weights. The result is rank
// 0's; gradients of the first step come in the order in which a backward pass of one rank finishes
// them.
TrialResult run_trial(const Config& config, comm::Communicator& world, const ReadSamples& samples,
                      std::int64_t steps);

}  // namespace grist::train
