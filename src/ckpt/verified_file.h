#pragma once
// Reading one file of a step so that only bytes whose block has the manifest's sum come out.
#include <array>
#include <filesystem>
#include <future>
#include <optional>
#include <span>
#include <vector>

#include "direct_reader.h"
#include "grist/ckpt/manifest.h"
#include "grist/ckpt/safetensors.h"
#include "grist/core/memory.h"

namespace grist::ckpt {

// Holds two blocks: the one asked for last and, when blocks are read in order, the next one, which
// a second thread fetches meanwhile. m and record must outlive it.
class VerifiedFile {
 public:
  VerifiedFile(std::filesystem::path step, const Manifest& m, const FileRecord& record);
  void read_ahead(bool on) { read_ahead_ = on; }  // blocks will be asked for in order
  std::uint64_t num_blocks() const { return record_.sums.size(); }
  std::uint64_t block_begin(std::uint64_t i) const { return i * manifest_.block_bytes; }
  std::uint64_t block_end(std::uint64_t i) const;
  // The block's bytes, until the next call. Throws DamagedStep.
  std::span<const std::byte> block(std::uint64_t i);
  void read(std::uint64_t offset, std::span<std::byte> out);
  [[noreturn]] void damaged(std::uint64_t begin, std::uint64_t end, std::string problem) const;

 private:
  std::filesystem::path step_;
  const Manifest& manifest_;
  const FileRecord& record_;
  void fetch(std::uint64_t i, const Buffer& into) const;

  DirectReader file_;
  std::array<Buffer, 2> buffers_;
  std::size_t current_ = 0;           // buffer that holds block held_
  std::uint64_t held_ = UINT64_MAX;   // verified block in buffers_[current_]
  std::uint64_t ahead_ = UINT64_MAX;  // block that is being fetched into the other buffer
  bool read_ahead_ = false;
  std::future<void> fetching_;  // last: waits before the buffers go
};

// Missing file or wrong size; empty when it is as recorded.
std::optional<Damage> check_size(const std::filesystem::path& step, const FileRecord& record);

// Where the slices of one shard lie in it.
struct PlacedSlice {
  const TensorRecord* tensor = nullptr;
  SliceRecord slice;
  std::uint64_t begin = 0;  // byte in the file of the part's first element
};

// Reads the shard's header (verified) and checks it against the manifest: run, step, and exactly
// the entries that the manifest places here. Ascending file offsets.
std::vector<PlacedSlice> place_slices(VerifiedFile& file, const Manifest& m,
                                      std::size_t file_index);

}  // namespace grist::ckpt
