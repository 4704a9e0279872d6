#include "step_writer.h"

#include <algorithm>
#include <map>

#include "grist/core/check.h"
#include "grist/core/log.h"

namespace grist {

namespace {

constexpr const char* kManifestName = "manifest.json";
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kFolderBytes = 64 * 1024;  // room for the folder's own blocks

bool present(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be seen cannot be replaced; creating it will say why
  return std::filesystem::exists(path, ignored);
}

void check_slice(const TensorSlice& s) {
  GRIST_CHECK(!s.name.empty() && s.name.find('@') == std::string::npos, "tensor name \"{}\"",
              s.name);
  GRIST_CHECK(0 <= s.begin && s.begin <= s.end && s.end <= s.shape.numel(),
              "{}: elements [{}, {}) of {}", s.name, s.begin, s.end, s.shape.str());
  GRIST_CHECK(s.begin == s.end || s.data != nullptr, "{}: no data", s.name);
}

}  // namespace

StepWriter::StepWriter(CheckpointFolder& folder, const SaveRequest& request)
    : folder_(folder),
      storage_(folder.storage()),
      request_(request),
      final_(folder.folder_ / step_name(request.step)) {
  GRIST_CHECK(request.step >= 0, "step {}", request.step);
  GRIST_CHECK(!request.shards.empty(), "a step without shards");
}

SavedStep StepWriter::run() {
  plan();
  try {
    make_folder();
    refuse_other_run();
    check_space();
    make_aside();
    write_files();
    write_manifest();
    commit();
  } catch (const Error& e) {
    if (committed_)
      fail(e.code(), "checkpoint step {} is complete but may not survive a power cut: {}",
           request_.step, e.what());
    if (!aside_.empty()) remove_quietly(storage_, aside_);
    fail(e.code(), "checkpoint step {} was not saved: {}; earlier steps are as they were",
         request_.step, e.what());
  } catch (...) {
    if (!committed_ && !aside_.empty()) remove_quietly(storage_, aside_);
    throw;
  }
  write_hint();
  return {.folder = final_, .bytes = manifest_.total_bytes()};
}

// ---- plan ------------------------------------------------------------------------------------

void StepWriter::plan() {
  manifest_.uuid = folder_.uuid_;
  manifest_.step = request_.step;
  manifest_.parent_step = request_.parent_step;
  manifest_.layout = request_.layout;
  manifest_.state = request_.state;
  manifest_.block_bytes = folder_.block_bytes_;
  for (std::size_t i = 0; i < request_.shards.size(); ++i) {
    manifest_.files.push_back(
        {.name = fmt::format("shard-{:05}-of-{:05}.safetensors", i, request_.shards.size()),
         .shard = true});
  }
  plan_tensors();
  for (std::size_t i = 0; i < request_.shards.size(); ++i) plan_shard(i);
  for (const TextFile& t : request_.texts) {
    GRIST_CHECK(is_plain_file_name(t.name) && t.name != kManifestName &&
                    manifest_.find_file(t.name) == nullptr,
                "text file name \"{}\"", t.name);
    manifest_.files.push_back({.name = t.name, .shard = false, .bytes = t.text.size()});
  }
  for (FileRecord& f : manifest_.files)
    f.sums.resize((f.bytes + manifest_.block_bytes - 1) / manifest_.block_bytes);
  std::uint64_t largest = 0;
  for (const FileRecord& f : manifest_.files) largest = std::max(largest, f.bytes);
  for (Buffer& b : buffers_)
    b = Buffer(std::min(manifest_.block_bytes, largest), Device::cpu, "checkpoint block");
}

// Every tensor's slices, over all shards, must tile it: a hole would be found only at load.
void StepWriter::plan_tensors() {
  std::map<std::string, TensorRecord> tensors;
  for (std::size_t i = 0; i < request_.shards.size(); ++i) {
    for (const TensorSlice& s : request_.shards[i]) {
      check_slice(s);
      auto [at, added] = tensors.try_emplace(s.name);
      TensorRecord& t = at->second;
      if (added) {
        t.name = s.name;
        t.dtype = s.dtype;
        t.shape = s.shape;
      }
      GRIST_CHECK(t.dtype == s.dtype && t.shape == s.shape, "{}: slices differ in dtype or shape",
                  s.name);
      if (s.begin < s.end || (s.shape.numel() == 0 && t.slices.empty()))
        t.slices.push_back({.file = i, .begin = s.begin, .end = s.end});
    }
  }
  for (auto& [name, t] : tensors) {
    std::sort(t.slices.begin(), t.slices.end(),
              [](const SliceRecord& a, const SliceRecord& b) { return a.begin < b.begin; });
    std::int64_t next = 0;
    for (const SliceRecord& s : t.slices) {
      GRIST_CHECK(s.begin == next, "{}: element {} is in {} slices", name, std::min(s.begin, next),
                  s.begin < next ? 2 : 0);
      next = s.end;
    }
    GRIST_CHECK(next == t.shape.numel() && !t.slices.empty(), "{}: elements from {} on are missing",
                name, next);
    manifest_.tensors.push_back(std::move(t));
  }
}

void StepWriter::plan_shard(std::size_t i) {
  std::vector<SafetensorsTensor> entries;
  for (const TensorSlice& s : request_.shards[i]) {
    const TensorRecord& t = *manifest_.find_tensor(s.name);
    const SliceRecord slice{.file = i, .begin = s.begin, .end = s.end};
    if (s.begin == s.end && (t.shape.numel() != 0 || t.slices.front().file != i)) continue;
    const bool is_whole = s.begin == 0 && s.end == t.shape.numel();
    entries.push_back({.name = entry_name(t, slice),
                       .view = {s.data, s.dtype, is_whole ? s.shape : Shape{s.end - s.begin}}});
  }
  const SafetensorsMetadata metadata{{"format", "pt"},
                                     {"grist.uuid", manifest_.uuid},
                                     {"grist.step", std::to_string(manifest_.step)},
                                     {"grist.rank", std::to_string(i)},
                                     {"grist.ranks", std::to_string(request_.shards.size())}};
  layouts_.push_back(layout_safetensors(entries, metadata));
  manifest_.files[i].bytes = layouts_.back().file_bytes;
  entries_.push_back(std::move(entries));
}

// ---- write aside -----------------------------------------------------------------------------

void StepWriter::make_folder() const {
  std::vector<std::filesystem::path> missing;
  for (auto p = std::filesystem::absolute(folder_.folder_).lexically_normal();
       !present(p) && p.has_relative_path(); p = p.parent_path())
    missing.push_back(p);
  for (auto p = missing.rbegin(); p != missing.rend(); ++p) {
    storage_.make_directory(*p);
    storage_.sync_directory(p->parent_path());
  }
}

void StepWriter::refuse_other_run() const {
  if (!present(final_)) return;
  std::string uuid;
  try {
    uuid = CheckpointReader(final_).manifest().uuid;
  } catch (const DamagedStep&) {
    return;  // of no use to anybody: replaced
  }
  if (uuid != manifest_.uuid)
    fail(ExitCode::cannot_create, "{} belongs to another run ({}); choose another folder",
         final_.string(), uuid);
}

void StepWriter::check_space() const {
  std::uint64_t needed = kFolderBytes + manifest_text(manifest_).size() + kPage;
  for (const FileRecord& f : manifest_.files) needed += (f.bytes + kPage - 1) / kPage * kPage;
  const std::uint64_t available = storage_.free_bytes(folder_.folder_);
  if (available < needed)
    fail(ExitCode::io, "{}: no space left: a checkpoint needs {}, {} free",
         folder_.folder_.string(), human_bytes(needed), human_bytes(available));
}

void StepWriter::make_aside() {
  for (;;) {
    attempt_ = fmt::format("{}-{}", manifest_.uuid, folder_.attempt_++);
    const std::filesystem::path name = final_.string() + ".tmp-" + attempt_;
    if (!storage_.make_directory(name)) continue;  // left by a killed process
    aside_ = name;
    lock_ = FolderLock(aside_);
    return;
  }
}

// All files get their room before the first byte is written: a full disk shows at once.
void StepWriter::write_files() {
  std::vector<ckpt::BlockWriter> writers;
  for (const FileRecord& f : manifest_.files) {
    writers.emplace_back(manifest_, f, storage_.create_file(aside_ / f.name), buffers_);
    writers.back().preallocate();
  }
  for (std::size_t i = 0; i < writers.size(); ++i) {
    if (i < layouts_.size()) {
      writers[i].append(std::as_bytes(std::span(layouts_[i].prefix)));
      for (const std::size_t e : layouts_[i].order) {
        const ConstTensorView& v = entries_[i][e].view;
        writers[i].append({static_cast<const std::byte*>(v.data), v.bytes()});
      }
    } else {
      writers[i].append(std::as_bytes(std::span(request_.texts[i - layouts_.size()].text)));
    }
    manifest_.files[i] = writers[i].finish();
  }
}

void StepWriter::write_manifest() {
  const std::string text = manifest_text(manifest_);
  const auto file = storage_.create_file(aside_ / kManifestName);
  file->write_at(0, std::as_bytes(std::span(text)));
  file->sync();
  file->close();
}

// ---- commit ----------------------------------------------------------------------------------

void StepWriter::commit() {
  storage_.sync_directory(aside_);
  if (present(final_)) {
    replace();
    return;
  }
  storage_.rename(aside_, final_);
  committed_ = true;
  storage_.sync_directory(folder_.folder_);
}

// The step exists already: this run fell back past it because it is damaged, or saved it before.
// Where names cannot be exchanged, it is called step-N.old for a moment; sweep() gives it its name
// back if the process dies then.
void StepWriter::replace() {
  std::filesystem::path old = aside_;
  if (!storage_.exchange(aside_, final_)) {
    old = final_.string() + ".old";
    if (present(old)) remove_quietly(storage_, old);
    storage_.rename(final_, old);
    try {
      storage_.rename(aside_, final_);
    } catch (const Error&) {
      storage_.rename(old, final_);
      throw;
    }
  }
  committed_ = true;
  storage_.sync_directory(folder_.folder_);
  remove_quietly(storage_, old);
}

// Never trusted by a reader, so a failure costs nothing but a line.
void StepWriter::write_hint() noexcept {
  const std::filesystem::path aside = folder_.folder_ / ("latest.tmp-" + attempt_);
  try {
    const std::string text = step_name(request_.step) + "\n";
    auto file = storage_.create_file(aside);
    file->write_at(0, std::as_bytes(std::span(text)));
    file->sync();
    file->close();
    storage_.rename(aside, folder_.folder_ / "latest");
    storage_.sync_directory(folder_.folder_);
  } catch (const std::exception& e) {
    log::warn("checkpoint step {} is saved, but not the hint `latest`: {}", request_.step,
              e.what());
    remove_quietly(storage_, aside);
  } catch (...) {
    remove_quietly(storage_, aside);
  }
}

}  // namespace grist
