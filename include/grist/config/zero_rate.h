#pragma once
// Steps behind the end of the decay that could change no weight.
#include <cstdint>
#include <string>

#include "grist/config/config.h"

namespace grist {

// What is wrong when steps of `done + 1` to `train_iters` have learning rate 0; empty: none has.
std::string zero_rate_problem(const OptimConfig& optim, std::int64_t done,
                              std::int64_t train_iters);

}  // namespace grist
