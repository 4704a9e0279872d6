// Reading one step (ckpt/checkpoint.h): manifest, sizes, checksums, and the bytes that the caller
// wants, whoever saved them.
#include <algorithm>
#include <cstring>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/check.h"
#include "verified_file.h"

namespace grist {

namespace {

constexpr std::uint64_t kMaxManifest = 512ULL << 20;

// Bytes [begin, end) of a shard go to `to`.
struct Extent {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::byte* to = nullptr;
};

Manifest read_manifest(const std::filesystem::path& folder) {
  Manifest m;
  try {
    m = parse_manifest(read_text(folder / kManifestName, kMaxManifest), kManifestName);
  } catch (const Error& e) {
    if (e.code() == ExitCode::out_of_memory) throw;
    throw DamagedStep(folder, {.file = kManifestName, .problem = e.what()});
  }
  const std::int64_t named = parse_step_name(folder.filename().string());
  if (named >= 0 && named != m.step)
    throw DamagedStep(folder, {.file = kManifestName,
                               .problem = fmt::format("is the manifest of step {}", m.step)});
  return m;
}

std::vector<Damage> check_sizes(const std::filesystem::path& folder, const Manifest& m) {
  std::vector<Damage> damage;
  for (const FileRecord& f : m.files) {
    if (auto d = ckpt::check_size(folder, f)) damage.push_back(*std::move(d));
  }
  return damage;
}

// Which bytes of one shard go where: every overlap of a slice with a destination.
std::vector<Extent> plan_reads(const std::vector<ckpt::PlacedSlice>& placed,
                               std::span<const TensorDestination* const> by_name) {
  std::vector<Extent> extents;
  for (const ckpt::PlacedSlice& p : placed) {
    const auto less = [](const TensorDestination* w, const std::string& n) { return w->name < n; };
    auto at = std::lower_bound(by_name.begin(), by_name.end(), p.tensor->name, less);
    for (; at != by_name.end() && (*at)->name == p.tensor->name; ++at) {
      const TensorDestination& w = **at;
      const std::uint64_t width = size_of(w.dtype);
      for_each_common_run(p.slice.part, w.part, columns_of(w.shape), [&](const CommonRun& run) {
        const std::uint64_t begin = p.begin + static_cast<std::uint64_t>(run.at_a) * width;
        extents.push_back(
            {.begin = begin,
             .end = begin + static_cast<std::uint64_t>(run.count) * width,
             .to = static_cast<std::byte*>(w.data) + static_cast<std::uint64_t>(run.at_b) * width});
      });
    }
  }
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  return extents;
}

// Front to back over the blocks, copying from each what is wanted of it.
void read_extents(ckpt::VerifiedFile& file, std::span<const Extent> extents,
                  const ReadOptions& options) {
  const bool touched_only = options.touched_blocks_only;
  std::size_t first = 0;  // extents before it are done
  const auto touches = [&](std::uint64_t begin, std::uint64_t end) {
    std::size_t e = first;
    while (e < extents.size() && extents[e].end <= begin) ++e;
    return e < extents.size() && extents[e].begin < end;
  };
  for (std::uint64_t i = 0; i < file.num_blocks(); ++i) {
    const std::uint64_t begin = file.block_begin(i), end = file.block_end(i);
    while (first < extents.size() && extents[first].end <= begin) ++first;
    if (touched_only && !touches(begin, end)) continue;
    file.read_ahead(!touched_only || touches(end, end + (end - begin)));
    const std::span<const std::byte> bytes = file.block(i);
    if (options.activity != nullptr) options.activity->beat();
    for (std::size_t e = first; e < extents.size() && extents[e].begin < end; ++e) {
      const std::uint64_t lo = std::max(extents[e].begin, begin);
      const std::uint64_t hi = std::min(extents[e].end, end);
      if (lo < hi)
        std::memcpy(extents[e].to + (lo - extents[e].begin), &bytes[lo - begin], hi - lo);
    }
  }
}

// Bad blocks that touch, under one heading.
void add_damage(std::vector<Damage>& all, const Damage& d) {
  if (!all.empty() && all.back().file == d.file && d.end > 0 && all.back().end == d.begin)
    all.back().end = d.end;
  else
    all.push_back(d);
}

void verify_file(const std::filesystem::path& folder, const Manifest& m, std::size_t index,
                 std::vector<Damage>& damage) {
  const std::size_t before = damage.size();
  try {
    ckpt::VerifiedFile file(folder, m, m.files[index]);
    file.read_ahead(true);
    for (std::uint64_t i = 0; i < file.num_blocks(); ++i) {
      try {
        file.block(i);
      } catch (const DamagedStep& e) {
        add_damage(damage, e.damage());
      }
    }
    if (damage.size() == before && m.files[index].shard) ckpt::place_slices(file, m, index);
  } catch (const DamagedStep& e) {
    add_damage(damage, e.damage());
  }
}

// Whether a wanted element lies in the file. Found by the manifest alone: the files of other ranks
// need not be opened.
std::vector<bool> touched_files(const Manifest& m,
                                std::span<const TensorDestination* const> by_name) {
  std::vector<bool> touched(m.files.size(), false);
  for (const TensorDestination* w : by_name) {
    const TensorRecord* t = m.find_tensor(w->name);
    if (t == nullptr) continue;
    for (const SliceRecord& s : t->slices)
      if (overlap(w->part, s.part, t->shape)) touched[s.file] = true;
  }
  return touched;
}

}  // namespace

CheckpointReader::CheckpointReader(std::filesystem::path step_folder)
    : folder_(std::move(step_folder)) {
  if (folder_.filename().empty()) folder_ = folder_.parent_path();
  manifest_ = read_manifest(folder_);
  const std::vector<Damage> damage = check_sizes(folder_, manifest_);
  if (!damage.empty()) throw DamagedStep(folder_, damage.front());
}

bool CheckpointReader::has_text(std::string_view name) const {
  const FileRecord* f = manifest_.find_file(name);
  return f != nullptr && !f->shard;
}

std::string CheckpointReader::text(std::string_view name) const {
  if (!has_text(name)) fail(ExitCode::bad_data, "{}: holds no {}", folder_.string(), name);
  const FileRecord& f = *manifest_.find_file(name);
  std::string out(f.bytes, '\0');
  ckpt::VerifiedFile(folder_, manifest_, f).read(0, std::as_writable_bytes(std::span(out)));
  return out;
}

void CheckpointReader::read(std::span<const TensorDestination> wanted,
                            const ReadOptions& options) const {
  check(wanted, options);
  std::vector<const TensorDestination*> by_name;
  by_name.reserve(wanted.size());
  for (const TensorDestination& w : wanted) by_name.push_back(&w);
  std::sort(by_name.begin(), by_name.end(),
            [](const auto* a, const auto* b) { return a->name < b->name; });
  const std::vector<bool> touched = touched_files(manifest_, by_name);
  for (std::size_t i = 0; i < manifest_.files.size(); ++i) {
    const FileRecord& record = manifest_.files[i];
    if (!touched[i] && options.touched_blocks_only) continue;
    ckpt::VerifiedFile file(folder_, manifest_, record);
    std::vector<Extent> extents;
    if (record.shard) extents = plan_reads(ckpt::place_slices(file, manifest_, i), by_name);
    read_extents(file, extents, options);
  }
}

void CheckpointReader::verify() const {
  for (std::size_t i = 0; i < manifest_.files.size(); ++i) {
    std::vector<Damage> damage;
    verify_file(folder_, manifest_, i, damage);
    if (!damage.empty()) throw DamagedStep(folder_, damage.front());
  }
}

void CheckpointReader::verify_other_files() const {
  std::vector<bool> holds(manifest_.files.size(), false);
  for (const TensorRecord& t : manifest_.tensors) {
    for (const SliceRecord& s : t.slices)
      if (s.part.size() > 0) holds[s.file] = true;
  }
  for (std::size_t i = 0; i < manifest_.files.size(); ++i) {
    std::vector<Damage> damage;
    if (!holds[i]) verify_file(folder_, manifest_, i, damage);
    if (!damage.empty()) throw DamagedStep(folder_, damage.front());
  }
}

VerifyReport verify_step(const std::filesystem::path& folder, VerifyDepth depth) {
  VerifyReport report;
  report.folder = folder.filename().empty() ? folder.parent_path() : folder;
  report.step = parse_step_name(report.folder.filename().string());
  Manifest m;
  try {
    m = read_manifest(report.folder);
  } catch (const DamagedStep& e) {
    report.damage.push_back(e.damage());
    return report;
  }
  report.step = m.step;
  report.uuid = m.uuid;
  report.num_tensors = static_cast<std::int64_t>(m.tensors.size());
  report.bytes = m.total_bytes();
  report.damage = check_sizes(report.folder, m);
  if (depth == VerifyDepth::sizes) return report;
  for (std::size_t i = 0; i < m.files.size(); ++i) {
    const bool wrong_size = std::any_of(report.damage.begin(), report.damage.end(),
                                        [&](const Damage& d) { return d.file == m.files[i].name; });
    if (!wrong_size) verify_file(report.folder, m, i, report.damage);
  }
  return report;
}

}  // namespace grist
