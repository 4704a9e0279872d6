#pragma once
// The safetensors files of a model as the hub has them: model.safetensors, or several files with
// model.safetensors.index.json. Read from anywhere, written aside and whole.
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grist/ckpt/safetensors.h"
#include "grist/hub/families.h"

namespace grist::hub {

float from_f16(std::uint16_t bits);
float from_bf16(std::uint16_t bits);
std::uint16_t to_bf16(float value);  // to nearest, ties to even

class HubFiles {
 public:
  // Opens every file and checks its header and the index. Throws Error{not_found} when there is
  // neither form, Error{bad_data} that names the file for everything that is wrong with it: a name
  // in two files, an index that says otherwise than the files.
  explicit HubFiles(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  std::vector<std::string> names() const;                     // ascending
  const SafetensorsEntry* find(std::string_view name) const;  // null when absent
  std::uint64_t bytes() const { return bytes_; }              // of all tensors
  // Elements from `first` on, as fp32 (exact for F32, BF16 and F16; another type is
  // Error{bad_data}). They must be inside the tensor.
  void read(std::string_view name, std::int64_t first, std::span<float> out) const;

 private:
  struct Place {
    const SafetensorsReader* file = nullptr;
    const SafetensorsEntry* entry = nullptr;
  };
  void open(const std::string& file);
  void open_index(const std::filesystem::path& index);
  const Place& at(std::string_view name) const;
  std::filesystem::path folder_;
  std::deque<SafetensorsReader> files_;
  std::unordered_map<std::string, Place> places_;
  std::uint64_t bytes_ = 0;
};

// Fills tensors of the checkpoint: `out` has the part's elements.
struct PartBuffer {
  const Part* part = nullptr;
  std::span<float> out{};
};
using PartReader = std::function<void(std::span<const PartBuffer> wanted)>;

struct WriteOptions {
  DType dtype = DType::f32;                       // f32 or bf16
  std::uint64_t max_shard_bytes = 5'000'000'000;  // a larger tensor has a file of its own
};
// Writes `tensors` into the folder and syncs the files. Holds one part, or several that together
// have at most 32 MiB. The same bytes for the same tensors. Returns the bytes of all tensors.
std::uint64_t write_hub_files(const std::filesystem::path& folder,
                              std::span<const HubTensor> tensors, const WriteOptions& options,
                              const PartReader& read);

}  // namespace grist::hub
