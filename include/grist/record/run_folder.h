#pragma once
// The folder of a run: config.yaml (resolved), metrics.jsonl, checkpoints/, tensorboard/. A folder
// belongs to one run: one that holds another architecture is refused.
#include <filesystem>
#include <optional>
#include <string>

#include "grist/ckpt/storage.h"
#include "grist/config/load.h"

namespace grist::record {

class RunFolder {
 public:
  explicit RunFolder(const std::filesystem::path& path) : path_(path) {}
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.yaml"; }
  std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }

  // Error{cannot_create} when the folder holds a run of another architecture, or is no folder;
  // other differences are logged.
  void check_owner(const LoadedConfig& config) const;
  // Makes this process the only one that trains in the folder, if there is one yet; the kernel lets
  // go when the process ends. Error{cannot_create} when another holds it.
  void lock();
  // A run that goes on does so with the file of the start before where there is no room.
  void write_config(const std::string& yaml) const;

 private:
  std::optional<Config> last_config() const;
  std::filesystem::path path_;
  FolderLock lock_;
};

}  // namespace grist::record
