// Filling a folder aside, and giving it its name.
#include "aside_folder.h"

#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"

namespace grist::hub {

namespace fs = std::filesystem;

namespace {
void refuse_existing(const fs::path& target) {
  std::error_code unreadable;  // creating something there will say why
  if (fs::exists(fs::symlink_status(target, unreadable)))
    fail(ExitCode::cannot_create, "{}: exists; choose another folder, or remove it",
         target.string());
}
}  // namespace

AsideFolder::AsideFolder(fs::path target) : target_(std::move(target).lexically_normal()) {
  if (target_.filename().empty()) target_ = target_.parent_path();
  refuse_existing(target_);
  aside_ = target_.string() + ".grist-tmp";
  make_directories(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
  std::error_code error;
  if (!fs::create_directory(aside_, error) && !fs::is_directory(aside_, error))
    fail(ExitCode::cannot_create, "{}: {}", aside_.string(), error.message());
  lock_ = FolderLock(aside_);
  if (!lock_.held())
    fail(ExitCode::cannot_create, "{}: another process is writing it", target_.string());
  for (const auto& left : fs::directory_iterator(aside_)) fs::remove_all(left.path(), error);
}

AsideFolder::~AsideFolder() {
  if (committed_ || !lock_.held()) return;
  std::error_code error;
  fs::remove_all(aside_, error);
  if (error) log::warn("{}: cannot be removed: {}", aside_.string(), error.message());
}

fs::path AsideFolder::commit() {
  sync_directory(aside_);
  refuse_existing(target_);
  rename_path(aside_, target_);
  committed_ = true;
  sync_directory(target_.has_parent_path() ? target_.parent_path() : fs::path("."));
  return target_;
}

}  // namespace grist::hub
