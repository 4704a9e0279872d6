#pragma once
// The folder of a run: config.yaml (resolved), metrics.jsonl, checkpoints/, tensorboard/. A folder
// belongs to one run: one that holds another architecture is refused.
#include <filesystem>
#include <string>

#include "grist/config/load.h"

namespace grist::train {

class RunFolder {
 public:
  explicit RunFolder(const std::string& path) : path_(path) {}
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.yaml"; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }

  // Error{cannot_create} when the folder holds a run of another architecture; other differences are
  // logged.
  void check_owner(const LoadedConfig& config) const;
  void write_config(const std::string& yaml) const;

 private:
  std::filesystem::path path_;
};

}  // namespace grist::train
