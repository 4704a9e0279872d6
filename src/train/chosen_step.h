#pragma once
// Which of a run's own checkpoints a start tries, and which are set aside: checkpoint.resume_step
// goes back to an older step, and the steps after it belong to a future that is given up. They are
// kept, under names that no later start takes for the run's.
#include <cstdint>
#include <filesystem>
#include <vector>

#include "grist/ckpt/checkpoint.h"

namespace grist::train {

struct ChosenSteps {
  std::vector<StepInfo> candidates{};  // best first
  std::vector<StepInfo> set_aside{};
};

// What rank 0 sees; the same on all ranks, collective. resume_step 0: all steps, newest first. Else
// that step, before it those that a run with the same resume_step saved after it: so the same
// command again goes on where it was stopped. Error{not_found} when there is no such step.
ChosenSteps choose_steps(comm::Communicator& world, const std::filesystem::path& folder,
                         std::int64_t resume_step);

// Moves `steps` to a new folder `aside-N` beside them and says so. On rank 0.
void set_aside(const std::filesystem::path& folder, const std::vector<StepInfo>& steps,
               std::int64_t resumed);

}  // namespace grist::train
