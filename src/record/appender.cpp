#include "appender.h"

#include "grist/core/check.h"
#include "grist/core/log.h"

namespace grist::record {

Appender::Appender(std::filesystem::path path, std::uint64_t max_waiting)
    : path_(std::move(path)), max_waiting_(max_waiting) {}

Appender::Appender(File file)
    : path_(file.path()), file_(std::move(file)), written_(file_.size()) {}

void Appender::append(std::string_view entry) {
  if (failing_) attempt();  // what waits comes first
  if (failing_ && waiting_.size() + entry.size() > max_waiting_) {
    ++lost_;
    return;
  }
  waiting_ += entry;
  if (!failing_) attempt();
}

void Appender::sync() {
  attempt();
  try {
    if (!failing_ && file_.is_open()) file_.sync();
  } catch (const Error& e) {
    log::warn("{}; training goes on", e.what());
  }
}

void Appender::attempt() {
  try {
    write();
  } catch (const Error& e) {
    failed(e.what());
  }
}

// The part of an entry that a failed attempt left is cut off first; where it could not be then, a
// later attempt does.
void Appender::write() {
  if (waiting_.empty()) return;
  if (!file_.is_open()) {
    make_directories(path_.parent_path());
    file_ = File::open_append(path_);
    written_ = file_.size();
  } else if (failing_) {
    file_.truncate(written_);
  }
  file_.append(waiting_);
  written_ += waiting_.size();
  waiting_.clear();
  if (failing_)
    log::info("{}: is written again{}", path_.string(),
              lost_ == 0 ? ", nothing is lost" : fmt::format("; {} entries are lost", lost_));
  failing_ = false;
  lost_ = 0;
}

void Appender::failed(const std::string& why) {
  if (!failing_) log::warn("{}; training goes on, what cannot be written waits in memory", why);
  failing_ = true;
  try {
    if (file_.is_open()) file_.truncate(written_);
  } catch (const Error&) {  // the next attempt cuts it
  }
}

}  // namespace grist::record
