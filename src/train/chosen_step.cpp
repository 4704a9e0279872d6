#include "chosen_step.h"

#include <algorithm>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/log.h"

namespace grist::train {

namespace {

namespace fs = std::filesystem;

// Was it saved by a run that had gone back to `resume_step`?
bool descends(const StepInfo& step, std::int64_t resume_step) {
  try {
    const CheckpointReader reader(step.folder);
    const Json* from = reader.state().find("resume_step");
    return from != nullptr && from->as_int() == resume_step;
  } catch (const DamagedStep&) {
    return false;
  }
}

std::string numbers(const std::vector<StepInfo>& steps) {
  std::string text;
  for (auto s = steps.rbegin(); s != steps.rend(); ++s)
    text += fmt::format("{}{}", text.empty() ? "" : ", ", s->step);
  return text;
}

ChosenSteps choose_here(const fs::path& folder, std::int64_t resume_step) {
  const std::vector<StepInfo> all = list_steps(folder);
  ChosenSteps out;
  if (resume_step == 0) {
    out.candidates = all;
    return out;
  }
  const auto chosen = std::find_if(all.begin(), all.end(),
                                   [&](const StepInfo& s) { return s.step == resume_step; });
  if (chosen == all.end())
    fail(ExitCode::not_found, "checkpoint.resume_step: {}: no step {}; there {}", folder.string(),
         resume_step, all.empty() ? "are none" : "are " + numbers(all));
  for (auto s = all.begin(); s != chosen; ++s)
    (descends(*s, resume_step) ? out.candidates : out.set_aside).push_back(*s);
  out.candidates.push_back(*chosen);
  return out;
}

fs::path new_folder(const fs::path& folder, Storage& storage) {
  for (int n = 1;; ++n) {
    const fs::path path = folder / fmt::format("aside-{}", n);
    if (storage.make_directory(path)) return path;
  }
}

}  // namespace

ChosenSteps choose_steps(comm::Communicator& world, const fs::path& folder,
                         std::int64_t resume_step) {
  ChosenSteps chosen;  // load_first_good takes rank 0's
  comm::agree(world, [&] {
    if (world.rank() == 0) chosen = choose_here(folder, resume_step);
  });
  return chosen;
}

void set_aside(const fs::path& folder, const std::vector<StepInfo>& steps, std::int64_t resumed) {
  if (steps.empty()) return;
  DiskStorage storage;
  const fs::path aside = new_folder(folder, storage);
  // Both names are durable before training goes on: a step lies in one of the two folders.
  for (const StepInfo& s : steps) storage.rename(s.folder, aside / s.folder.filename());
  storage.sync_directory(aside);
  storage.sync_directory(folder);
  log::info("checkpoint.resume_step: steps {} are set aside in {}; the run goes on from step {}",
            numbers(steps), aside.string(), resumed);
}

}  // namespace grist::train
