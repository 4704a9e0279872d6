#include "step_writer.h"

#include <cstring>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/log.h"

namespace grist {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kFolderBytes = 64 * 1024;  // room for the folder's own blocks

bool present(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be seen cannot be replaced; creating it will say why
  return std::filesystem::exists(path, ignored);
}

}  // namespace

StepWriter::StepWriter(CheckpointFolder& folder, const SaveRequest& request)
    : folder_(folder),
      storage_(folder.storage()),
      ranks_(folder.ranks()),
      request_(request),
      final_(folder.folder_ / step_name(request.step)) {}

// Work of rank 0 whose failure is every rank's.
void StepWriter::on_root(const std::function<void()>& work) {
  comm::agree(ranks_, [&] {
    if (is_root()) work();
  });
}

// One rank alone writes all files; else each its shard, and rank 0 the texts.
bool StepWriter::is_own(std::size_t file) const {
  if (ranks_.size() == 1) return true;
  const std::size_t writer = file < shards_.size() ? file : 0;
  return static_cast<int>(writer) == ranks_.rank();
}

SavedStep StepWriter::run() {
  try {
    comm::agree(ranks_, [this] { check_request(); });
    const std::vector<std::string> lists = exchange_slices();
    comm::agree(ranks_, [&] {
      take_slices(lists);
      plan();
    });
    return write();
  } catch (const Error& e) {
    give_up(e);
  } catch (...) {
    writers_.clear();
    if (ranks_.size() == 1 && !committed_ && !aside_.empty()) remove_quietly(storage_, aside_);
    throw;
  }
}

SavedStep StepWriter::write() {
  on_root([this] {
    make_folder();
    refuse_other_run();
    check_space();
    make_aside();
  });
  share_name();
  comm::agree(ranks_, [this] { reserve_files(); });
  comm::agree(ranks_, [this] { write_files(); });
  share_sums();
  on_root([this] {
    write_manifest();
    storage_.sync_directory(aside_);
    commit();
  });
  committed_ = true;
  on_root([this] { storage_.sync_directory(folder_.folder_); });
  if (is_root()) {
    if (!replaced_.empty()) remove_quietly(storage_, replaced_);
    write_hint();
  }
  return {.folder = final_, .bytes = manifest_.total_bytes()};
}

// After an agreed error all ranks come here together. After another one nobody knows what the
// others do: the folder aside stays for the next start.
void StepWriter::give_up(const Error& e) {
  writers_.clear();
  const bool together = ranks_.size() == 1 || dynamic_cast<const comm::Agreed*>(&e) != nullptr;
  std::string what;
  if (committed_) {
    what = fmt::format("checkpoint step {} is complete but may not survive a power cut: {}",
                       request_.step, e.what());
  } else if (!together) {
    what =
        fmt::format("the save of checkpoint step {} was interrupted: {}", request_.step, e.what());
  } else {
    comm::barrier(ranks_);  // all files are closed
    if (is_root() && !aside_.empty()) remove_quietly(storage_, aside_);
    what = fmt::format("checkpoint step {} was not saved: {}; earlier steps are as they were",
                       request_.step, e.what());
  }
  if (together) throw comm::Agreed(e.code(), what);
  throw Error(e.code(), what);
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

// Every rank learns the folder's name; the attempt is the part that only rank 0 knows.
void StepWriter::share_name() {
  attempt_ = comm::broadcast(ranks_, attempt_, 0);
  aside_ = final_.string() + ".tmp-" + attempt_;
}

// All files get their room before the first byte is written: a full disk shows at once.
void StepWriter::reserve_files() {
  for (std::size_t i = 0; i < manifest_.files.size(); ++i) {
    if (!is_own(i)) continue;
    const FileRecord& f = manifest_.files[i];
    writers_.emplace_back(manifest_, f, storage_.create_file(aside_ / f.name), buffers_,
                          ranks_.activity());
    writers_.back().preallocate();
  }
}

void StepWriter::write_files() {
  auto writer = writers_.begin();
  for (std::size_t i = 0; i < manifest_.files.size(); ++i) {
    if (!is_own(i)) continue;
    if (i < layouts_.size()) {
      writer->append(std::as_bytes(std::span(layouts_[i].prefix)));
      for (const std::size_t e : layouts_[i].order) {
        const ConstTensorView& v = entries_[i][e].view;
        if (v.data == nullptr && v.bytes() > 0)
          request_.source(entries_[i][e].name, [&](auto bytes) { writer->append(bytes); });
        else
          writer->append({static_cast<const std::byte*>(v.data), v.bytes()});
      }
    } else {
      writer->append(std::as_bytes(std::span(request_.texts[i - layouts_.size()].text)));
    }
    manifest_.files[i] = writer->finish();
    ++writer;
  }
  writers_.clear();
}

// Rank 0 needs the sums of all shards for the manifest.
void StepWriter::share_sums() {
  if (ranks_.size() == 1) return;
  std::vector<std::uint64_t>& own = manifest_.files[static_cast<std::size_t>(ranks_.rank())].sums;
  const std::vector<std::string> all = comm::gather(
      ranks_, {reinterpret_cast<const char*>(own.data()), own.size() * sizeof own[0]}, 0);
  for (std::size_t p = 0; p < all.size(); ++p) {
    std::vector<std::uint64_t>& sums = manifest_.files[p].sums;
    GRIST_CHECK(all[p].size() == sums.size() * sizeof sums[0], "{} bytes of sums from rank {}",
                all[p].size(), p);
    std::memcpy(sums.data(), all[p].data(), all[p].size());
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
  if (present(final_))
    replace();
  else
    storage_.rename(aside_, final_);
  committed_ = true;
}

// The step exists already: this run fell back past it because it is damaged, or saved it before.
// Where names cannot be exchanged, it is called step-N.old for a moment; sweep() gives it its name
// back if the process dies then.
void StepWriter::replace() {
  replaced_ = aside_;
  if (storage_.exchange(aside_, final_)) return;
  replaced_ = final_.string() + ".old";
  if (present(replaced_)) remove_quietly(storage_, replaced_);
  storage_.rename(final_, replaced_);
  try {
    storage_.rename(aside_, final_);
  } catch (const Error&) {
    storage_.rename(replaced_, final_);
    throw;
  }
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
