#pragma once
// A file that grows by whole entries and never ends a run. What cannot be written (a full disk, one
// that fails) waits in memory and is tried again with every entry; a torn one is cut off first. One
// warning when it begins, one line when it is over.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "grist/core/file.h"

namespace grist::record {

class Appender {
 public:
  // Opened when there is something to write. `max_waiting`: bytes beyond which new entries are lost
  // while nothing can be written.
  explicit Appender(std::filesystem::path path, std::uint64_t max_waiting = 16U << 20);
  // One that is open, and ends with a whole entry.
  explicit Appender(File file);

  void append(std::string_view entry);
  // To the disk, as far as it goes now.
  void sync();
  // Of the file once all that waits is written.
  std::uint64_t bytes() const { return written_ + waiting_.size(); }

 private:
  void attempt();
  void write();
  void failed(const std::string& why);

  std::filesystem::path path_;
  std::uint64_t max_waiting_ = 16U << 20;
  File file_;
  std::uint64_t written_ = 0;
  std::string waiting_;
  std::int64_t lost_ = 0;  // entries
  bool failing_ = false;
};

}  // namespace grist::record
