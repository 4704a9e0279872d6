// Reading and writing the safetensors files of a model on the hub.
#include "grist/hub/hub_files.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "grist/ckpt/manifest.h"
#include "grist/core/check.h"
#include "part_stream.h"

namespace grist::hub {

namespace fs = std::filesystem;

namespace {
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::size_t kChunk = 1 << 18;  // elements converted at once
}  // namespace

// ---- conversions -----------------------------------------------------------------------------

float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

float from_f16(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = bits >> 10 & 31U, fraction = bits & 1023U;
  if (exponent == 0) {  // fraction * 2^-24
    const float value = std::ldexp(static_cast<float>(fraction), -24);
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 64U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16);
}

// ---- reading ---------------------------------------------------------------------------------

HubFiles::HubFiles(const fs::path& folder) : folder_(folder) {
  const bool single = fs::exists(folder / kSingle), index = fs::exists(folder / kIndex);
  if (!single && !index)
    fail(ExitCode::not_found, "{}: holds neither {} nor {}", folder.string(), kSingle, kIndex);
  if (single && index)
    fail(ExitCode::bad_data, "{}: holds both {} and {}: which is the model? Remove one",
         folder.string(), kSingle, kIndex);
  if (index)
    open_index(folder / kIndex);
  else
    open(kSingle);
}

void HubFiles::open(const std::string& file) {
  const SafetensorsReader& reader = files_.emplace_back(folder_ / file);
  for (const SafetensorsEntry& e : reader.header().entries) {
    const auto [at, added] = places_.try_emplace(e.name, Place{&reader, &e});
    if (!added)
      fail(ExitCode::bad_data, "{}: tensor \"{}\" is in {} too", reader.path().string(), e.name,
           at->second.file->path().filename().string());
    bytes_ += e.end - e.begin;
  }
}

void HubFiles::open_index(const fs::path& index) {
  const std::string where = index.string();
  const Json json = Json::parse(read_text(index, kMaxSafetensorsHeader), where);
  const Json* map = json.find("weight_map");
  if (map == nullptr || !map->is_object())
    fail(ExitCode::bad_data, "{}: weight_map: missing", where);
  std::vector<std::string> names;
  for (const auto& [tensor, file] : map->as_object()) {
    if (!file.is_string() || !is_plain_file_name(file.as_string()))
      fail(ExitCode::bad_data, "{}: weight_map: \"{}\" is in {}; want a file beside the index",
           where, tensor, file.dump());
    names.push_back(file.as_string());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) open(name);
  for (const auto& [tensor, file] : map->as_object()) {
    const auto at = places_.find(tensor);
    if (at == places_.end() || at->second.file->path().filename() != file.as_string())
      fail(ExitCode::bad_data, "{}: weight_map: \"{}\" is not in {}", where, tensor,
           file.as_string());
  }
  if (map->as_object().size() == places_.size()) return;
  for (const auto& [name, place] : places_)
    if (map->find(name) == nullptr)
      fail(ExitCode::bad_data, "{}: weight_map: lacks \"{}\" of {}", where, name,
           place.file->path().filename().string());
}

std::vector<std::string> HubFiles::names() const {
  std::vector<std::string> out;
  out.reserve(places_.size());
  for (const auto& [name, place] : places_) out.push_back(name);
  std::sort(out.begin(), out.end());
  return out;
}

const SafetensorsEntry* HubFiles::find(std::string_view name) const {
  const auto at = places_.find(std::string(name));
  return at == places_.end() ? nullptr : at->second.entry;
}

const HubFiles::Place& HubFiles::at(std::string_view name) const {
  const auto found = places_.find(std::string(name));
  if (found == places_.end())
    fail(ExitCode::bad_data, "{}: has no tensor \"{}\"", folder_.string(), name);
  return found->second;
}

void HubFiles::read(std::string_view name, std::int64_t first, std::span<float> out) const {
  const auto& [file, entry] = at(name);
  const auto begin = static_cast<std::uint64_t>(first);
  if (entry->type == "F32") return file->read(*entry, begin * 4, std::as_writable_bytes(out));
  const bool half = entry->type == "F16";
  if (!half && entry->type != "BF16")
    fail(ExitCode::bad_data, "{}: tensor \"{}\" is {}; want F32, BF16 or F16",
         file->path().string(), name, entry->type);
  std::vector<std::uint16_t> bits(std::min(out.size(), kChunk));
  for (std::size_t i = 0; i < out.size(); i += bits.size()) {
    const auto now = std::span(bits).first(std::min(bits.size(), out.size() - i));
    file->read(*entry, (begin + i) * 2, std::as_writable_bytes(now));
    for (std::size_t j = 0; j < now.size(); ++j)
      out[i + j] = half ? from_f16(now[j]) : from_bf16(now[j]);
  }
}

// ---- writing ---------------------------------------------------------------------------------

namespace {

DType dtype_of(const HubTensor& t, DType dtype) {
  return t.fp32 ? DType::f32 : dtype;
}

std::uint64_t bytes_of(const HubTensor& t, DType dtype) {
  return static_cast<std::uint64_t>(t.shape.numel()) * size_of(dtype_of(t, dtype));
}

// In the model's order; a file is closed before the tensor that would make it too large.
std::vector<std::span<const HubTensor>> shards_of(std::span<const HubTensor> tensors,
                                                  const WriteOptions& options) {
  std::vector<std::span<const HubTensor>> out;
  std::size_t begin = 0;
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t more = bytes_of(tensors[i], options.dtype);
    if (i > begin && bytes + more > options.max_shard_bytes) {
      out.push_back(tensors.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += more;
  }
  out.push_back(tensors.subspan(begin));
  return out;
}

class ShardWriter {
 public:
  ShardWriter(const fs::path& path, DType dtype, const PartReader& read)
      : file_(File::create_new(path)), dtype_(dtype), parts_(read) {}

  void write(std::span<const HubTensor> tensors) {
    std::vector<SafetensorsTensor> entries;
    for (const HubTensor& t : tensors)
      entries.push_back({.name = t.name, .view = {nullptr, dtype_of(t, dtype_), t.shape}});
    const SafetensorsLayout layout = layout_safetensors(entries, {{"format", "pt"}});
    file_.preallocate(layout.file_bytes);
    put(std::as_bytes(std::span(layout.prefix)));
    for (const std::size_t i : layout.order)
      for (const Part& p : tensors[i].parts) parts_.add(p);
    for (const std::size_t i : layout.order) tensor(tensors[i]);
    GRIST_CHECK(at_ == layout.file_bytes, "{} bytes written, {} announced", at_, layout.file_bytes);
    file_.sync();
    file_.close();
  }

 private:
  void put(std::span<const std::byte> bytes) {
    file_.write_at(at_, bytes);
    at_ += bytes.size();
  }

  void values(std::span<const float> v, DType dtype) {
    if (dtype == DType::f32) return put(std::as_bytes(v));
    for (std::size_t i = 0; i < v.size(); i += kChunk) {
      const auto now = v.subspan(i, std::min(kChunk, v.size() - i));
      bits_.resize(now.size());
      std::transform(now.begin(), now.end(), bits_.begin(), to_bf16);
      put(std::as_bytes(std::span(bits_)));
    }
  }

  void tensor(const HubTensor& t) {
    const DType dtype = dtype_of(t, dtype_);
    for (std::size_t i = 0; i < t.parts.size(); ++i) values(parts_.next(), dtype);
    if (!t.parts.empty()) return;
    const auto numel = static_cast<std::size_t>(t.shape.numel());
    const std::vector<float> fill(std::min(numel, kChunk), t.fill);
    for (std::size_t i = 0; i < numel; i += fill.size())
      values(std::span(fill).first(std::min(fill.size(), numel - i)), dtype);
  }

  File file_;
  DType dtype_;
  PartStream parts_;
  std::vector<std::uint16_t> bits_;
  std::uint64_t at_ = 0;
};

}  // namespace

std::uint64_t write_hub_files(const fs::path& folder, std::span<const HubTensor> tensors,
                              const WriteOptions& options, const PartReader& read) {
  const auto shards = shards_of(tensors, options);
  Json map = Json::object();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        shards.size() == 1 ? kSingle
                           : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const HubTensor& t : shards[i]) {
      total += bytes_of(t, options.dtype);
      map.as_object().emplace_back(t.name, name);
    }
    ShardWriter(folder / name, options.dtype, read).write(shards[i]);
  }
  if (shards.size() == 1) return total;
  Json metadata = Json::object();
  metadata.set("total_size", total);
  Json index = Json::object();
  index.set("metadata", std::move(metadata));
  index.set("weight_map", std::move(map));
  write_text_atomically(folder / kIndex, index.dump(2) + "\n");
  return total;
}

}  // namespace grist::hub
