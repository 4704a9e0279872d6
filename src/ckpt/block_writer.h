#pragma once
// Writes one file of a step front to back in whole blocks and sums each block on the way out of
// memory, so the sums are of what was meant, not of what a disk returns. While one block is being
// written by a second thread, the next is copied and summed; operations still reach the storage one
// after the other, in order.
#include <array>
#include <future>
#include <memory>

#include "grist/ckpt/manifest.h"
#include "grist/ckpt/storage.h"
#include "grist/comm/communicator.h"
#include "grist/core/memory.h"

namespace grist::ckpt {

class BlockWriter {
 public:
  using Buffers = std::array<Buffer, 2>;  // each of one block, or of the whole file if smaller
  // m and buffers must outlive the writer. Writers may share buffers if only one is between its
  // first append() and finish(). `activity` beats with every block.
  BlockWriter(const Manifest& m, FileRecord record, std::unique_ptr<StorageFile> file,
              Buffers& buffers, comm::Activity& activity);
  void preallocate() { file_->preallocate(record_.bytes); }
  void append(std::span<const std::byte> bytes);
  FileRecord finish();  // last block, fsync, close; the record has its sums

 private:
  std::span<const std::byte> take_block();
  void flush();
  void wait();

  const Manifest& manifest_;
  FileRecord record_;
  std::unique_ptr<StorageFile> file_;
  Buffers& buffers_;
  comm::Activity& activity_;
  std::size_t current_ = 0;  // which buffer is being filled
  std::size_t filled_ = 0;
  std::uint64_t written_ = 0;  // bytes handed to the storage
  std::future<void> pending_;  // last: waits for the write before the file goes
};

}  // namespace grist::ckpt
