// A checkpoint folder (ckpt/checkpoint.h): which steps are there, saving one, removing old ones and
// what interrupted saves have left.
#include <sys/random.h>

#include <algorithm>
#include <array>

#include "grist/ckpt/checkpoint.h"
#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "step_writer.h"

namespace grist {

namespace {

namespace fs = std::filesystem;

bool is_leftover(const std::string& name) {
  if (name.starts_with("latest.tmp-")) return true;
  return name.starts_with("step-") && (name.find(".tmp-") != std::string::npos ||
                                       name.ends_with(".del") || name.ends_with(".old"));
}

// A step whose replacement was interrupted (StepWriter::replace) gets its name back. True when that
// was so: there is nothing to remove.
bool recover(Storage& storage, const fs::path& path) {
  const fs::path step = path.parent_path() / path.stem();
  if (path.extension() != ".old" || parse_step_name(step.filename().string()) < 0 ||
      fs::exists(step))
    return false;
  try {
    storage.rename(path, step);
    storage.sync_directory(path.parent_path());
    log::warn("{}: brought back; the save that was replacing it was interrupted", step.string());
  } catch (const Error& e) {
    log::warn("an interrupted save cannot be undone: {}", e.what());
  }
  return true;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    names.push_back(at->path().filename().string());
  if (error && error != std::errc::no_such_file_or_directory)
    fail(ExitCode::io, "{}: cannot list: {}", folder.string(), error.message());
  std::sort(names.begin(), names.end());  // the order of a folder is the file system's own
  return names;
}

void remove_tree(Storage& storage, const fs::path& path) {
  if (!fs::is_directory(fs::symlink_status(path))) {
    storage.remove_file(path);
    return;
  }
  for (const std::string& name : names_in(path)) remove_tree(storage, path / name);
  storage.remove_directory(path);
}

}  // namespace

bool remove_quietly(Storage& storage, const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(fs::symlink_status(path, ignored))) return true;
  try {
    remove_tree(storage, path);
    return true;
  } catch (const std::exception& e) {
    log::warn("could not remove all of {}: {}", path.string(), e.what());
  } catch (...) {
  }
  return false;
}

std::string new_uuid() {
  std::array<unsigned char, 16> b{};
  if (::getrandom(b.data(), b.size(), 0) != static_cast<ssize_t>(b.size()))
    fail(ExitCode::io, "the kernel gives no random bytes");
  b[6] = static_cast<unsigned char>((b[6] & 0x0F) | 0x40);  // version 4
  b[8] = static_cast<unsigned char>((b[8] & 0x3F) | 0x80);  // variant 1
  std::string s;
  for (std::size_t i = 0; i < b.size(); ++i)
    s += fmt::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
  return s;
}

TensorSlice whole(std::string name, const ConstTensorView& view) {
  return {.name = std::move(name),
          .dtype = view.dtype,
          .shape = view.shape,
          .part = whole_part(view.shape),
          .data = view.data};
}

TensorDestination whole_destination(std::string name, const TensorView& view) {
  return {.name = std::move(name),
          .dtype = view.dtype,
          .shape = view.shape,
          .part = whole_part(view.shape),
          .data = view.data};
}

std::vector<StepInfo> list_steps(const fs::path& folder) {
  std::vector<StepInfo> steps;
  for (const std::string& name : names_in(folder)) {
    const std::int64_t step = parse_step_name(name);
    std::error_code ignored;
    if (step >= 0 && fs::is_directory(folder / name, ignored))
      steps.push_back({.step = step, .folder = folder / name});
  }
  std::sort(steps.begin(), steps.end(),
            [](const StepInfo& a, const StepInfo& b) { return a.step > b.step; });
  return steps;
}

std::vector<StepInfo> resolve_steps(const fs::path& path) {
  if (fs::is_regular_file(path) && path.filename() == "latest")
    return resolve_steps(fs::absolute(path).parent_path());
  if (!fs::is_directory(path))
    fail(ExitCode::not_found, "{}: no such folder; a run folder or a checkpoint step is expected",
         path.string());
  const fs::path folder = path.filename().empty() ? path.parent_path() : path;
  if (const std::int64_t step = parse_step_name(folder.filename().string());
      step >= 0 || fs::exists(folder / kManifestName))
    return {{.step = step, .folder = folder}};
  std::vector<StepInfo> steps = list_steps(folder);
  if (steps.empty()) steps = list_steps(folder / "checkpoints");
  if (steps.empty()) fail(ExitCode::not_found, "{}: holds no checkpoint", path.string());
  return steps;
}

CheckpointFolder::CheckpointFolder(fs::path folder, std::string uuid,
                                   const CheckpointOptions& options)
    : folder_(std::move(folder)),
      uuid_(std::move(uuid)),
      communicator_(options.communicator),
      storage_(options.storage),
      block_bytes_(options.block_bytes),
      damaged_(options.damaged.begin(), options.damaged.end()) {
  GRIST_CHECK(is_plain_file_name(uuid_), "uuid \"{}\"", uuid_);
}

SavedStep CheckpointFolder::save(const SaveRequest& request) {
  const SavedStep saved = StepWriter(*this, request).run();
  damaged_.erase(request.step);
  return saved;
}

int CheckpointFolder::prune(std::int64_t keep, VerifyDepth depth) {
  std::int64_t removed = 0;
  comm::agree(ranks(), [&] {
    if (ranks().rank() == 0) removed = prune_here(keep, depth);
  });
  return static_cast<int>(comm::all_reduce_sum(ranks(), removed));
}

int CheckpointFolder::prune_here(std::int64_t keep, VerifyDepth depth) {
  GRIST_CHECK(keep >= 0, "keep = {}", keep);
  if (keep == 0) return 0;
  std::vector<fs::path> victims;
  std::int64_t good = 0;
  for (const StepInfo& s : list_steps(folder_)) {
    if (good == keep)
      victims.push_back(s.folder);
    else if (counts(s, depth))
      ++good;
  }
  std::vector<fs::path> renamed;
  try {
    for (const fs::path& victim : victims) {
      const fs::path del = victim.string() + ".del";
      if (fs::exists(del) && !remove_quietly(storage(), del)) continue;
      storage().rename(victim, del);
      renamed.push_back(del);
    }
    // Only now may content go: a half-deleted step must never be found under its own name.
    if (!renamed.empty()) storage().sync_directory(folder_);
  } catch (const Error& e) {
    log::warn("old checkpoints could not be removed: {}", e.what());
    return 0;
  }
  int removed = 0;
  for (const fs::path& del : renamed) removed += remove_quietly(storage(), del) ? 1 : 0;
  return removed;
}

bool CheckpointFolder::counts(const StepInfo& step, VerifyDepth depth) const {
  return !damaged_.contains(step.step) && verify_step(step.folder, depth).ok();
}

int CheckpointFolder::sweep() {
  std::int64_t removed = 0;
  comm::agree(ranks(), [&] {
    if (ranks().rank() == 0) removed = sweep_here();
  });
  return static_cast<int>(comm::all_reduce_sum(ranks(), removed));
}

int CheckpointFolder::sweep_here() {
  int removed = 0;
  for (const std::string& name : names_in(folder_)) {
    if (!is_leftover(name)) continue;
    const fs::path path = folder_ / name;
    if (recover(storage(), path)) continue;
    FolderLock lock;
    if (fs::is_directory(fs::symlink_status(path))) {
      lock = FolderLock(path);
      if (!lock.held()) continue;  // a live process writes there
    }
    removed += remove_quietly(storage(), path) ? 1 : 0;
  }
  return removed;
}

}  // namespace grist
