#include "block_writer.h"

#include <algorithm>
#include <cstring>

#include "grist/core/check.h"

namespace grist::ckpt {

BlockWriter::BlockWriter(const Manifest& m, FileRecord record, std::unique_ptr<StorageFile> file,
                         Buffer& buffer)
    : manifest_(m), record_(std::move(record)), file_(std::move(file)), buffer_(buffer) {
  GRIST_CHECK(buffer.size() == m.block_bytes, "buffer of {} bytes, blocks of {}", buffer.size(),
              m.block_bytes);
  record_.sums.clear();
}

void BlockWriter::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t n = std::min(bytes.size(), buffer_.size() - filled_);
    std::memcpy(buffer_.data() + filled_, bytes.data(), n);
    filled_ += n;
    bytes = bytes.subspan(n);
    if (filled_ == buffer_.size()) flush();
  }
}

void BlockWriter::flush() {
  if (filled_ == 0) return;
  const std::span<const std::byte> block(buffer_.data(), filled_);
  record_.sums.push_back(block_sum(manifest_, record_.name, record_.sums.size(), block));
  file_->write_at(written_, block);
  written_ += filled_;
  filled_ = 0;
}

FileRecord BlockWriter::finish() {
  flush();
  GRIST_CHECK(written_ == record_.bytes, "{}: {} bytes written, {} announced", record_.name,
              written_, record_.bytes);
  file_->sync();
  file_->close();
  return std::move(record_);
}

}  // namespace grist::ckpt
