#pragma once
// What `grist checkpoint ls` and `verify` print: text and a verdict, no output of their own.
#include <filesystem>
#include <string>

namespace grist {

struct CheckpointReport {
  std::string text;  // lines, each ending in '\n'
  bool ok = true;    // false: some step is damaged (exit code 65)
};

// One line a step, newest first: number, size, tensors, date, and whether manifest and
// sizes are right. `path`: as for resolve_steps.
CheckpointReport checkpoint_ls(const std::filesystem::path& path);

// Reads every byte of every step under `path` (or of the one step) and lists each damaged range.
CheckpointReport checkpoint_verify(const std::filesystem::path& path);

}  // namespace grist
