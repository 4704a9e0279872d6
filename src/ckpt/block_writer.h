#pragma once
// Writes one file of a step front to back in whole blocks and sums each block on the way out of
// memory, so the sums are of what was meant, not of what a disk returns.
#include <memory>

#include "grist/ckpt/manifest.h"
#include "grist/ckpt/storage.h"
#include "grist/core/memory.h"

namespace grist::ckpt {

class BlockWriter {
 public:
  // `buffer` holds one block of m.block_bytes; m and buffer must outlive the writer.
  BlockWriter(const Manifest& m, FileRecord record, std::unique_ptr<StorageFile> file,
              Buffer& buffer);
  void preallocate() { file_->preallocate(record_.bytes); }
  void append(std::span<const std::byte> bytes);
  FileRecord finish();  // last block, fsync, close; the record has its sums

 private:
  void flush();

  const Manifest& manifest_;
  FileRecord record_;
  std::unique_ptr<StorageFile> file_;
  Buffer& buffer_;
  std::size_t filled_ = 0;
  std::uint64_t written_ = 0;
};

}  // namespace grist::ckpt
