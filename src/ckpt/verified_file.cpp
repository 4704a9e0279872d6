#include "verified_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "grist/core/check.h"
#include "grist/core/hash.h"

namespace grist::ckpt {

namespace {

// DirectReader cannot be moved, so the error is translated where its path is built.
std::filesystem::path readable(const std::filesystem::path& step, const FileRecord& record) {
  try {
    File::open_read(step / record.name);
  } catch (const Error& e) {
    throw DamagedStep(step, {.file = record.name, .problem = e.what()});
  }
  return step / record.name;
}

}  // namespace

VerifiedFile::VerifiedFile(std::filesystem::path step, const Manifest& m, const FileRecord& record)
    : step_(std::move(step)), manifest_(m), record_(record), file_(readable(step_, record)) {
  const std::size_t bytes = std::min(m.block_bytes, (record.bytes + 4095) / 4096 * 4096);
  if (bytes > 0) buffers_[0] = Buffer(bytes, Device::cpu, "checkpoint block");
  if (record.sums.size() > 1) buffers_[1] = Buffer(bytes, Device::cpu, "checkpoint block");
}

std::uint64_t VerifiedFile::block_end(std::uint64_t i) const {
  return std::min(block_begin(i) + manifest_.block_bytes, record_.bytes);
}

void VerifiedFile::damaged(std::uint64_t begin, std::uint64_t end, std::string problem) const {
  throw DamagedStep(
      step_, {.file = record_.name, .begin = begin, .end = end, .problem = std::move(problem)});
}

std::span<const std::byte> VerifiedFile::block(std::uint64_t i) {
  GRIST_CHECK(i < num_blocks(), "block {} of {}", i, num_blocks());
  const std::uint64_t begin = block_begin(i), end = block_end(i);
  if (held_ == i) return {buffers_[current_].data(), end - begin};
  held_ = UINT64_MAX;
  try {
    if (fetching_.valid() && ahead_ == i) {
      current_ = 1 - current_;
      fetching_.get();
    } else {
      if (fetching_.valid()) fetching_.wait();
      fetching_ = {};
      fetch(i, buffers_[current_]);
    }
  } catch (const Error& e) {
    damaged(begin, end, e.what());
  }
  if (read_ahead_ && i + 1 < num_blocks()) {
    ahead_ = i + 1;
    fetching_ =
        std::async(std::launch::async,
                   [this, next = i + 1, into = &buffers_[1 - current_]] { fetch(next, *into); });
  }
  const std::span<const std::byte> bytes(buffers_[current_].data(), end - begin);
  const std::uint64_t sum = block_sum(manifest_, record_.name, i, bytes);
  if (sum != record_.sums[i])
    damaged(begin, end,
            fmt::format("sum {} was saved, the bytes have {}", hash_hex(record_.sums[i]),
                        hash_hex(sum)));
  held_ = i;
  return bytes;
}

void VerifiedFile::fetch(std::uint64_t i, const Buffer& into) const {
  file_.read_at(block_begin(i), {into.data(), block_end(i) - block_begin(i)}, into.size());
}

void VerifiedFile::read(std::uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const std::uint64_t i = offset / manifest_.block_bytes;
    const auto bytes = block(i).subspan(offset - block_begin(i));
    const std::size_t n = std::min(bytes.size(), out.size());
    std::memcpy(out.data(), bytes.data(), n);
    out = out.subspan(n);
    offset += n;
  }
}

std::optional<Damage> check_size(const std::filesystem::path& step, const FileRecord& record) {
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(step / record.name, error);
  if (error) return Damage{.file = record.name, .problem = error.message()};
  if (size == record.bytes) return {};
  return Damage{.file = record.name,
                .begin = std::min(size, record.bytes),
                .end = std::max(size, record.bytes),
                .problem = fmt::format("{} bytes were saved, the file has {}", record.bytes, size)};
}

namespace {

SafetensorsHeader read_header(VerifiedFile& file, const FileRecord& record) {
  try {
    std::array<std::byte, 8> start{};
    if (record.bytes < start.size()) fail(ExitCode::bad_data, "too short");
    file.read(0, start);
    std::string json(safetensors_header_length(start, record.bytes, "header"), '\0');
    file.read(8, std::as_writable_bytes(std::span(json)));
    return parse_safetensors_header(json, record.bytes, "header");
  } catch (const DamagedStep&) {
    throw;
  } catch (const Error& e) {
    file.damaged(0, 0, e.what());
  }
}

void check_metadata(const VerifiedFile& file, const SafetensorsHeader& h, const Manifest& m) {
  const std::string* uuid = h.find_metadata("grist.uuid");
  const std::string* step = h.find_metadata("grist.step");
  if (uuid == nullptr || *uuid != m.uuid || step == nullptr || *step != std::to_string(m.step))
    file.damaged(0, 0, "the shard belongs to another run or step");
}

}  // namespace

std::vector<PlacedSlice> place_slices(VerifiedFile& file, const Manifest& m,
                                      std::size_t file_index) {
  const SafetensorsHeader h = read_header(file, m.files[file_index]);
  check_metadata(file, h, m);
  std::vector<PlacedSlice> placed;
  for (const TensorRecord& t : m.tensors) {
    for (const SliceRecord& s : t.slices) {
      if (s.file != file_index) continue;
      const std::string name = entry_name(t, s);
      const SafetensorsEntry* e = h.find(name);
      if (e == nullptr || e->dtype != t.dtype || !(e->shape == entry_shape(t, s)))
        file.damaged(0, 0, fmt::format("entry \"{}\" is missing or another than recorded", name));
      placed.push_back({.tensor = &t, .slice = s, .begin = e->begin});
    }
  }
  if (placed.size() != h.entries.size())
    file.damaged(0, 0,
                 fmt::format("{} entries, the manifest knows {}", h.entries.size(), placed.size()));
  std::sort(placed.begin(), placed.end(),
            [](const PlacedSlice& a, const PlacedSlice& b) { return a.begin < b.begin; });
  return placed;
}

}  // namespace grist::ckpt
