#pragma once
// Reading large files past the page cache: the kernel's read-ahead of small pieces leaves a fast
// disk half idle, and a checkpoint is read once. Falls back to ordinary reads wherever the file
// system, the size or the alignment does not allow it.
#include <filesystem>
#include <span>

#include "grist/core/file.h"

namespace grist::ckpt {

class DirectReader {
 public:
  explicit DirectReader(const std::filesystem::path& path);
  ~DirectReader();
  DirectReader(const DirectReader&) = delete;
  DirectReader& operator=(const DirectReader&) = delete;
  // Fills out; a file that ends before is Error{bad_data}. Room behind `out`, up to a whole number
  // of pages, may be written to as well if `room` says it is there.
  void read_at(std::uint64_t offset, std::span<std::byte> out, std::size_t room) const;

 private:
  File file_;
  int direct_ = -1;
};

}  // namespace grist::ckpt
