#include "block_writer.h"

#include <algorithm>
#include <cstring>

#include "grist/core/check.h"

namespace grist::ckpt {

BlockWriter::BlockWriter(const Manifest& m, FileRecord record, std::unique_ptr<StorageFile> file,
                         Buffers& buffers, comm::Activity& activity)
    : manifest_(m),
      record_(std::move(record)),
      file_(std::move(file)),
      buffers_(buffers),
      activity_(activity) {
  for (const Buffer& b : buffers)
    GRIST_CHECK(b.size() == m.block_bytes || b.size() >= record_.bytes,
                "buffer of {} bytes, blocks of {}, file of {}", b.size(), m.block_bytes,
                record_.bytes);
  record_.sums.clear();
}

void BlockWriter::append(std::span<const std::byte> bytes) {
  const Buffer* buffer = &buffers_[current_];
  while (!bytes.empty()) {
    const std::size_t n = std::min(bytes.size(), buffer->size() - filled_);
    std::memcpy(buffer->data() + filled_, bytes.data(), n);
    filled_ += n;
    bytes = bytes.subspan(n);
    if (filled_ < buffer->size()) continue;
    flush();
    buffer = &buffers_[current_];
  }
}

// Throws what the write before threw.
void BlockWriter::wait() {
  if (pending_.valid()) pending_.get();
}

// The block's sum is made while the one before is still being written.
std::span<const std::byte> BlockWriter::take_block() {
  const std::span<const std::byte> block(buffers_[current_].data(), filled_);
  record_.sums.push_back(block_sum(manifest_, record_.name, record_.sums.size(), block));
  wait();
  activity_.beat();
  return block;
}

void BlockWriter::flush() {
  const std::span<const std::byte> block = take_block();
  pending_ = std::async(std::launch::async,
                        [file = file_.get(), at = written_, block] { file->write_at(at, block); });
  written_ += filled_;
  filled_ = 0;
  current_ = 1 - current_;
}

FileRecord BlockWriter::finish() {
  if (filled_ > 0) {  // nothing is left to do beside it
    file_->write_at(written_, take_block());
    written_ += filled_;
  }
  wait();
  GRIST_CHECK(written_ == record_.bytes, "{}: {} bytes written, {} announced", record_.name,
              written_, record_.bytes);
  file_->sync();
  file_->close();
  return std::move(record_);
}

}  // namespace grist::ckpt
