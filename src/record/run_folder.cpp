#include "grist/record/run_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "grist/ckpt/checkpoint.h"
#include "grist/config/compare.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"

namespace grist::record {

void RunFolder::check_owner(const LoadedConfig& now) const {
  std::error_code unreadable;  // creating something there will say why
  std::filesystem::path there = std::filesystem::absolute(path_).lexically_normal();
  while (!std::filesystem::exists(there, unreadable) && there.has_relative_path())
    there = there.parent_path();
  if (!std::filesystem::is_directory(there, unreadable))
    fail(ExitCode::cannot_create, "run.dir: {}: {} is not a folder; choose another", path_.string(),
         there.string());
  if (::access(there.c_str(), W_OK | X_OK) != 0)
    fail(ExitCode::cannot_create, "run.dir: {}: {} is not writable: {}", path_.string(),
         there.string(), std::strerror(errno));
  if (!std::filesystem::exists(config(), unreadable)) return;
  const auto metrics_bytes = std::filesystem::file_size(metrics(), unreadable);
  if ((unreadable || metrics_bytes == 0) && list_steps(checkpoints()).empty())
    return;  // a run that ended before its first step left nothing to protect
  const std::optional<Config> before = last_config();
  if (!before) return;  // the checkpoint's tensors still tell another architecture
  std::string changed;
  for (const ConfigDifference& d : config_differences(*before, now.config)) {
    if (d.architecture) {
      fail(ExitCode::cannot_create,
           "{}: holds another run: {} is {} there and {} here; choose another run.dir or restore "
           "the value",
           path_.string(), d.key, d.before.empty() ? "not set" : d.before,
           d.after.empty() ? "not set" : d.after);
    }
    changed += fmt::format("{}{} {} -> {}", changed.empty() ? "" : ", ", d.key, d.before, d.after);
  }
  if (!changed.empty()) log::info("changed since the last start: {}", changed);
}

// Written by an older version or by hand, it may not load any more; that is no reason to lose a
// run.
std::optional<Config> RunFolder::last_config() const {
  try {
    return saved_config(read_text(config()), config().string());
  } catch (const Error& e) {
    const std::string what = e.what();
    log::warn("{}; this record of the last start is not used", what.substr(0, what.find('\n')));
    return {};
  }
}

void RunFolder::lock() {
  std::error_code unreadable;
  if (lock_.held() || !std::filesystem::is_directory(path_, unreadable)) return;
  lock_ = FolderLock(path_);
  if (!lock_.held())
    fail(ExitCode::cannot_create,
         "{}: another process is training in this folder; wait for it, or choose another run.dir",
         path_.string());
}

void RunFolder::write_config(const std::string& yaml) const {
  make_directories(path_);
  try {
    write_text_atomically(config(), yaml);
  } catch (const Error& e) {
    std::error_code unreadable;
    if (!std::filesystem::exists(config(), unreadable)) throw;
    log::warn("{}; the one of the start before stays, the run goes on", e.what());
  }
}

}  // namespace grist::record
