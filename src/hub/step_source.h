#pragma once
// What every export takes from a checkpoint step.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/progress.h"
#include "grist/hub/hub_files.h"

namespace grist::hub {

void stop_if_asked();  // Error{preempted} when a stop signal came

// What an imported model came with, else what the tokenizer's files say.
SpecialTokens special_tokens(const CheckpointReader& step);

// A bias that the family has no place for must be zero: training has had them off all along.
// Error{config} otherwise.
void refuse_lost_biases(const CheckpointReader& step, Family family, const ModelConfig& c);

// Reads parts of a step, verifying the blocks that hold them.
class StepParts {
 public:
  StepParts(const CheckpointReader& step, std::uint64_t bytes)
      : step_(step), progress_("export", bytes, "MB", 1e6) {}

  void read(std::span<const PartBuffer> wanted);
  void finish() { progress_.finish(done_); }

 private:
  const CheckpointReader& step_;
  Progress progress_;
  std::uint64_t done_ = 0;
};

// What `use` gives for the newest good step; damaged ones are named and passed over.
template <class Use> auto with_newest_good(const std::filesystem::path& path, const Use& use) {
  for (const StepInfo& s : resolve_steps(path)) {
    try {
      return use(CheckpointReader(s.folder));
    } catch (const DamagedStep& e) {
      log::warn("checkpoint {} is damaged: {}", s.folder.string(), e.damage().str());
    }
  }
  fail(ExitCode::bad_data, "{}: no usable checkpoint; `grist checkpoint verify` lists the damage",
       path.string());
}

}  // namespace grist::hub
