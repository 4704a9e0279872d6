// The plan of a save: which file holds which part of which tensor. The same on all ranks, from what
// each has told the others.
#include <algorithm>
#include <map>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "slice_exchange.h"
#include "step_writer.h"

namespace grist {

namespace {

void check_slice(const TensorSlice& s, bool has_source) {
  GRIST_CHECK(!s.name.empty() && s.name.find('@') == std::string::npos, "tensor name \"{}\"",
              s.name);
  GRIST_CHECK(fits(s.part, s.shape), "{}: elements [{}, {}) of {}", s.name, s.part.begin,
              s.part.end, s.shape.str());
  const bool from_source = has_source && s.part.size() == s.shape.numel();
  GRIST_CHECK(s.part.size() == 0 || s.data != nullptr || from_source, "{}: no data", s.name);
}

}  // namespace

void StepWriter::check_request() const {
  GRIST_CHECK(request_.step >= 0, "step {}", request_.step);
  GRIST_CHECK(!request_.shards.empty(), "a step without shards");
  GRIST_CHECK(ranks_.size() == 1 || request_.shards.size() == 1, "{} shards of one of {} ranks",
              request_.shards.size(), ranks_.size());
  for (const std::vector<TensorSlice>& shard : request_.shards) {
    for (const TensorSlice& s : shard) check_slice(s, request_.source != nullptr);
  }
}

// What every rank saves; all then make the same plan.
std::vector<std::string> StepWriter::exchange_slices() {
  if (ranks_.size() == 1) return {};
  return comm::all_gather(
      ranks_, fmt::format("{}\n", request_.step) + ckpt::encode_slices(request_.shards[0]));
}

void StepWriter::take_slices(const std::vector<std::string>& lists) {
  const std::string step = fmt::format("{}\n", request_.step);
  for (const std::string& list : lists) {
    GRIST_CHECK(list.starts_with(step), "ranks save different steps: {} and {}", request_.step,
                list.substr(0, list.find('\n')));
    shards_.push_back(ckpt::decode_slices(std::string_view(list).substr(step.size())));
  }
  if (lists.empty())
    shards_ = request_.shards;
  else
    shards_[static_cast<std::size_t>(ranks_.rank())] = request_.shards[0];
}

void StepWriter::plan() {
  manifest_.uuid = folder_.uuid_;
  manifest_.step = request_.step;
  manifest_.parent_step = request_.parent_step;
  manifest_.layout = request_.layout;
  manifest_.state = request_.state;
  manifest_.block_bytes = folder_.block_bytes_;
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    manifest_.files.push_back(
        {.name = fmt::format("shard-{:05}-of-{:05}.safetensors", i, shards_.size()),
         .shard = true});
  }
  plan_tensors();
  for (std::size_t i = 0; i < shards_.size(); ++i) plan_shard(i);
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
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    for (const TensorSlice& s : shards_[i]) {
      auto [at, added] = tensors.try_emplace(s.name);
      TensorRecord& t = at->second;
      if (added) {
        t.name = s.name;
        t.dtype = s.dtype;
        t.shape = s.shape;
      }
      GRIST_CHECK(t.dtype == s.dtype && t.shape == s.shape, "{}: slices differ in dtype or shape",
                  s.name);
      if (s.part.size() > 0 || (s.shape.numel() == 0 && t.slices.empty()))
        t.slices.push_back({.file = i, .part = s.part});
    }
  }
  for (auto& [name, t] : tensors) {
    std::sort(t.slices.begin(), t.slices.end(), slice_order);
    std::vector<TensorPart> parts;
    for (const SliceRecord& s : t.slices) parts.push_back(s.part);
    const Tiling found = tiling(parts, t.shape);
    GRIST_CHECK(!found.hole, "{}: element {} is in no slice", name, *found.hole);
    GRIST_CHECK(!found.twice, "{}: element {} is in two slices", name, *found.twice);
    GRIST_CHECK(!t.slices.empty(), "{}: no slices", name);
    manifest_.tensors.push_back(std::move(t));
  }
}

void StepWriter::plan_shard(std::size_t i) {
  std::vector<SafetensorsTensor> entries;
  for (const TensorSlice& s : shards_[i]) {
    const TensorRecord& t = *manifest_.find_tensor(s.name);
    const SliceRecord slice{.file = i, .part = s.part};
    if (s.part.size() == 0 && (t.shape.numel() != 0 || t.slices.front().file != i)) continue;
    entries.push_back(
        {.name = entry_name(t, slice), .view = {s.data, s.dtype, entry_shape(t, slice)}});
  }
  const SafetensorsMetadata metadata{{"format", "pt"},
                                     {"grist.uuid", manifest_.uuid},
                                     {"grist.step", std::to_string(manifest_.step)},
                                     {"grist.rank", std::to_string(i)},
                                     {"grist.ranks", std::to_string(shards_.size())}};
  layouts_.push_back(layout_safetensors(entries, metadata));
  manifest_.files[i].bytes = layouts_.back().file_bytes;
  entries_.push_back(std::move(entries));
}

}  // namespace grist
