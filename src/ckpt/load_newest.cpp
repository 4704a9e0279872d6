// Which step to take: the newest one that is good, on one rank and on many.
#include <algorithm>
#include <functional>
#include <map>

#include "grist/ckpt/checkpoint.h"
#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "slice_exchange.h"

namespace grist {

namespace {

[[noreturn]] void none_usable(std::string_view where, std::size_t count) {
  fail(ExitCode::bad_data,
       "{}: none of the {} checkpoints is usable; refusing to start from step 0; restore a step or "
       "move the folder away",
       where, count);
}

void pass_over(const StepInfo& step, const ReadOptions& options) {
  if (options.passed_over != nullptr) options.passed_over->push_back(step.step);
}

void warn_passed_over(const StepInfo& step, std::string_view damage) {
  log::warn("checkpoint {} is damaged: {}; trying the step before", step.folder.string(), damage);
}

// Runs `work` on all ranks. True when some rank found damage: rank 0 names that of the lowest one.
// What else fails on a rank is thrown on all.
bool damaged(comm::Communicator& ranks, const StepInfo& step, const std::function<void()>& work) {
  std::string damage;
  comm::agree(ranks, [&] {
    try {
      work();
    } catch (const DamagedStep& e) {
      damage = e.damage().str();
    }
  });
  if (comm::all_reduce_max(ranks, damage.empty() ? 0 : 1) == 0) return false;
  for (const std::string& theirs : comm::gather(ranks, damage, 0)) {
    if (theirs.empty()) continue;
    warn_passed_over(step, theirs);
    break;
  }
  return true;
}

std::vector<StepInfo> share_steps(comm::Communicator& ranks, std::span<const StepInfo> steps) {
  std::string text;
  for (const StepInfo& s : steps)
    text += fmt::format("{}{}{}{}", s.step, '\0', s.folder.string(), '\0');
  text = comm::broadcast(ranks, text, 0);
  std::vector<StepInfo> all;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t middle = text.find('\0', at), end = text.find('\0', middle + 1);
    all.push_back({.step = std::stoll(text.substr(at, middle - at)),
                   .folder = text.substr(middle + 1, end - middle - 1)});
    at = end + 1;
  }
  return all;
}

// An element that no rank asks for would be left as it is in memory.
void check_cover(std::span<const TensorDestination> wanted) {
  std::map<std::string_view, std::vector<TensorPart>> by_name;
  std::map<std::string_view, Shape> shapes;
  for (const TensorDestination& w : wanted) {
    GRIST_CHECK(fits(w.part, w.shape), "{}: elements [{}, {}) of {}", w.name, w.part.begin,
                w.part.end, w.shape.str());
    GRIST_CHECK(shapes.try_emplace(w.name, w.shape).first->second == w.shape,
                "{}: ranks ask for other shapes", w.name);
    by_name[w.name].push_back(w.part);
  }
  for (auto& [name, parts] : by_name) {
    const std::optional<std::int64_t> hole = tiling(parts, shapes.at(name)).hole;
    GRIST_CHECK(!hole, "{}: no rank reads element {}", name, *hole);
  }
}

// On rank 0 what all ranks ask for, without places; elsewhere empty.
std::vector<TensorDestination> gather_wanted(comm::Communicator& ranks,
                                             std::span<const TensorDestination> wanted) {
  std::vector<TensorSlice> mine;
  for (const TensorDestination& w : wanted)
    mine.push_back({.name = w.name, .dtype = w.dtype, .shape = w.shape, .part = w.part});
  std::vector<TensorDestination> all;
  const std::vector<std::string> texts = comm::gather(ranks, ckpt::encode_slices(mine), 0);
  for (const std::string& text : texts) {
    for (const TensorSlice& s : ckpt::decode_slices(text))
      all.push_back({.name = s.name, .dtype = s.dtype, .shape = s.shape, .part = s.part});
  }
  return all;
}

}  // namespace

std::optional<CheckpointReader> load_newest(const std::filesystem::path& folder,
                                            std::span<const TensorDestination> wanted,
                                            const ReadOptions& options) {
  const std::vector<StepInfo> steps = list_steps(folder);
  for (const StepInfo& s : steps) {
    try {
      CheckpointReader reader(s.folder);
      reader.read(wanted, options);
      return reader;
    } catch (const DamagedStep& e) {
      warn_passed_over(s, e.damage().str());
      pass_over(s, options);
    }
  }
  if (!steps.empty()) none_usable(folder.string(), steps.size());
  return {};
}

std::optional<CheckpointReader> load_newest(comm::Communicator& ranks,
                                            const std::filesystem::path& folder,
                                            std::span<const TensorDestination> wanted,
                                            const ReadOptions& options) {
  std::vector<StepInfo> steps;
  comm::agree(ranks, [&] {
    if (ranks.rank() == 0) steps = list_steps(folder);
  });
  return load_first_good(ranks, steps, wanted, options);
}

std::optional<CheckpointReader> load_first_good(comm::Communicator& ranks,
                                                std::span<const StepInfo> steps,
                                                std::span<const TensorDestination> wanted,
                                                const ReadOptions& options) {
  const std::vector<StepInfo> all_steps = share_steps(ranks, steps);
  if (all_steps.empty()) return {};
  const std::vector<TensorDestination> all = gather_wanted(ranks, wanted);
  const bool is_root = ranks.rank() == 0;
  comm::agree(ranks, [&] { check_cover(all); });
  // A rank's own part is never the whole, which rank 0 compares.
  const ReadOptions part{
      .ignore_prefixes = {""}, .touched_blocks_only = true, .activity = &ranks.activity()};
  for (const StepInfo& s : all_steps) {
    std::optional<CheckpointReader> reader;
    const auto open = [&] {
      reader.emplace(s.folder);
      if (is_root) reader->check(all, options);
    };
    const auto read = [&] {
      reader->read(wanted, part);
      if (is_root) reader->verify_other_files();
    };
    if (!damaged(ranks, s, open) && !damaged(ranks, s, read)) return reader;
    pass_over(s, options);
  }
  comm::agree(ranks, [&] {
    none_usable(all_steps.front().folder.parent_path().string(), all_steps.size());
  });
  return {};
}

}  // namespace grist
