#pragma once
// manifest.json of a checkpoint step: which files there are, the sums of their blocks, and where
// each tensor's elements lie. docs/formats/checkpoint.md is the format's page. Do not change the
// meaning of existing keys: they are on disk.
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/error.h"
#include "grist/core/json.h"
#include "grist/core/tensor.h"
#include "grist/core/tensor_part.h"

namespace grist {

constexpr const char* kManifestName = "manifest.json";
// What is written: version 1 as long as all parts are flat, so that older programs read it too;
// parts in a window of columns need version 2. Both are read.
constexpr std::int64_t kCheckpointVersion = 1;
constexpr std::int64_t kColumnPartsVersion = 2;
constexpr std::uint64_t kCheckpointBlock = 4 << 20;  // bytes under one sum

// A range of a file that is not what was saved. `end` 0: the file as a whole.
struct Damage {
  std::string file{};  // name inside the step folder
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string problem{};
  std::string str() const;  // "shard-00000-of-00001.safetensors bytes [0, 4194304): sum ..."
};

// A step that cannot be trusted; the caller goes on to the step before. Code bad_data.
class DamagedStep : public Error {
 public:
  DamagedStep(const std::filesystem::path& step, Damage damage);
  const Damage& damage() const { return damage_; }

 private:
  Damage damage_;
};

struct FileRecord {
  std::string name{};  // inside the step folder; no separators
  bool shard = false;  // a safetensors shard; otherwise a text that came with the step
  std::uint64_t bytes = 0;
  std::vector<std::uint64_t> sums{};  // one a block, keyed (see block_sum)
};

// A part of a tensor, in one shard. The entry there has the tensor's own name and shape when the
// part is the whole, else entry_name() and one dim.
struct SliceRecord {
  std::size_t file = 0;  // index into Manifest::files
  TensorPart part{};
};

struct TensorRecord {
  std::string name{};
  DType dtype = DType::f32;
  Shape shape{};
  std::vector<SliceRecord> slices{};  // in slice_order(); tile the tensor
};

struct Manifest {
  std::string uuid{};  // of the run
  std::int64_t step = 0;
  std::int64_t parent_step = -1;  // the step that the saving process started from; -1: none
  Json layout = Json::object();   // axis -> size, e.g. world, expert_parallel
  std::uint64_t block_bytes = kCheckpointBlock;
  std::vector<FileRecord> files{};
  std::vector<TensorRecord> tensors{};  // ascending names
  Json state = Json::object();          // the caller's: counters, schedules, statistics

  const FileRecord* find_file(std::string_view name) const;      // null when absent
  const TensorRecord* find_tensor(std::string_view name) const;  // null when absent
  std::uint64_t total_bytes() const;                             // of all files
};

// XXH3-64 seeded by uuid, step, file name and block number: a block from another place, step or
// run has another sum even when its bytes are the same.
std::uint64_t block_sum(const Manifest& m, std::string_view file, std::uint64_t block,
                        std::span<const std::byte> bytes);

std::string entry_name(const TensorRecord& tensor, const SliceRecord& slice);
Shape entry_shape(const TensorRecord& tensor, const SliceRecord& slice);
bool slice_order(const SliceRecord& a, const SliceRecord& b);  // by column, then by element
std::string step_name(std::int64_t step);                      // "step-00001000"
std::int64_t parse_step_name(std::string_view name);           // -1: not such a name
bool is_plain_file_name(std::string_view name);                // no folder, not hidden, printable

// The text ends with its own checksum, so a damaged manifest is never interpreted.
std::string manifest_text(const Manifest& m);
// Throws Error{bad_data}: "<where>: <problem>".
Manifest parse_manifest(std::string_view text, std::string_view where);

}  // namespace grist
