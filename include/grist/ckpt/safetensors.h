#pragma once
// Safetensors files: an 8-byte little-endian header length, a JSON header, then the bytes of the
// tensors without a hole. The reader takes files from anywhere: the header is checked completely
// (length, grammar, duplicate names, types, checked size arithmetic, offsets that start at 0, touch
// and end at the file's end) before anything is allocated from it. Every defect is Error{bad_data}
// that names the file. docs/formats/checkpoint.md describes how checkpoints use these files.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grist/core/file.h"
#include "grist/core/tensor.h"

namespace grist {

constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;  // bytes; the format's own limit

struct SafetensorsEntry {
  std::string name{};
  std::string type{};            // as written in the file: "F32"
  std::optional<DType> dtype{};  // empty: a type that grist does not compute with, e.g. F16
  Shape shape{};
  std::uint64_t begin = 0;  // bytes from the start of the file
  std::uint64_t end = 0;
};

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsHeader {
  SafetensorsMetadata metadata{};
  std::vector<SafetensorsEntry> entries{};  // ascending offsets
  std::vector<std::uint32_t> by_name{};     // indices of entries, ascending names

  const SafetensorsEntry* find(std::string_view name) const;     // null when absent
  const std::string* find_metadata(std::string_view key) const;  // null when absent
};

// Length of the JSON from the first eight bytes. Throws when the file cannot hold that many.
std::uint64_t safetensors_header_length(std::span<const std::byte, 8> start,
                                        std::uint64_t file_bytes, std::string_view where);
// `json` is the header text with its padding; `where` opens error messages.
SafetensorsHeader parse_safetensors_header(std::string_view json, std::uint64_t file_bytes,
                                           std::string_view where);

class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);
  const SafetensorsHeader& header() const { return header_; }
  const std::filesystem::path& path() const { return file_.path(); }
  const SafetensorsEntry& at(std::string_view name) const;  // Error{bad_data} when absent
  // All bytes of an entry; out.size() must be their number.
  void read(const SafetensorsEntry& entry, std::span<std::byte> out) const;
  // Bytes from `offset` of an entry on; they must be inside it.
  void read(const SafetensorsEntry& entry, std::uint64_t offset, std::span<std::byte> out) const;
  // Into a tensor of the same dtype and shape; a difference is Error{bad_data} with both.
  void read(std::string_view name, const TensorView& out) const;

 private:
  File file_;
  SafetensorsHeader header_;
};

struct SafetensorsTensor {
  std::string name{};
  ConstTensorView view{};
};

// What a file will hold, before any data is written: `prefix` (length, JSON, padding to 8), then
// the tensors in `order` (descending alignment of the dtype, then name) without gaps.
struct SafetensorsLayout {
  std::string prefix{};
  std::vector<std::size_t> order{};
  std::uint64_t file_bytes = 0;
};
SafetensorsLayout layout_safetensors(std::span<const SafetensorsTensor> tensors,
                                     const SafetensorsMetadata& metadata);

// Written beside, synced, renamed over `path`.
void write_safetensors(const std::filesystem::path& path,
                       std::span<const SafetensorsTensor> tensors,
                       const SafetensorsMetadata& metadata);

const char* safetensors_type(DType dtype);  // "F32", "BF16", ...

}  // namespace grist
