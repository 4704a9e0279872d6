#pragma once
// A folder that appears whole or not at all: filled under another name, renamed last.
#include <filesystem>

#include "grist/ckpt/storage.h"

namespace grist::hub {

class AsideFolder {
 public:
  // Error{cannot_create} when `target` exists, or another process is filling it. What a killed
  // process left under the name aside is removed.
  explicit AsideFolder(std::filesystem::path target);
  ~AsideFolder();  // without commit(): removes it
  AsideFolder(const AsideFolder&) = delete;
  AsideFolder& operator=(const AsideFolder&) = delete;

  const std::filesystem::path& path() const { return aside_; }
  // Syncs the folder and renames it; files in it are the caller's to sync. Returns the target.
  std::filesystem::path commit();

 private:
  std::filesystem::path target_, aside_;
  FolderLock lock_;
  bool committed_ = false;
};

}  // namespace grist::hub
