#include "run_folder.h"

#include "grist/config/compare.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"

namespace grist::train {

void RunFolder::check_owner(const LoadedConfig& now) const {
  if (!std::filesystem::exists(config())) return;
  const LoadedConfig before = load_config(config(), {});
  std::string changed;
  for (const ConfigDifference& d : config_differences(before.config, now.config)) {
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

void RunFolder::write_config(const std::string& yaml) const {
  make_directories(path_);
  write_text_atomically(config(), yaml);
}

}  // namespace grist::train
