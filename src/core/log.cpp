#include "grist/core/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <mutex>

#include "grist/core/error.h"
#include "grist/core/output.h"

namespace grist::log {

namespace {
std::atomic<int> rank_of_process = 0;

template <class Sink> spdlog::logger make(const char* pattern) {
  spdlog::logger made("grist", std::make_shared<Sink>());
  made.set_pattern(pattern);
  made.flush_on(spdlog::level::info);
  return made;
}

// Lines that nobody reads, or that a full disk does not take, are no reason to end the work.
class Output final : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    try {
      write_output({line.data(), line.size()});
    } catch (const Error& e) {
      if (!warned_) fmt::print(stderr, "warning: {}; lines are missing there\n", e.what());
      warned_ = true;
    }
  }
  void flush_() override {}

 private:
  bool warned_ = false;
};

spdlog::logger& logger(bool to_stderr) {
  static spdlog::logger out = make<Output>("%v");
  static spdlog::logger err = make<spdlog::sinks::stderr_sink_mt>("%l: %v");
  return to_stderr ? err : out;
}
}  // namespace

void set_rank(int rank) {
  rank_of_process = rank;
}

void from_rank(const std::string& line) {
  const int rank = rank_of_process;
  logger(true).warn(rank == 0 ? line : fmt::format("rank {}: {}", rank, line));
}

void write(Level level, const std::string& line) {
  if (rank_of_process != 0) return;
  if (level == Level::info) {
    logger(false).info(line);
  } else if (level == Level::warn) {
    logger(true).warn(line);
  } else {
    logger(true).error(line);
  }
}

}  // namespace grist::log
