#include "grist/core/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>

namespace grist::log {

namespace {
std::atomic<int> rank_of_process = 0;

template <class Sink> spdlog::logger make(const char* pattern) {
  spdlog::logger made("grist", std::make_shared<Sink>());
  made.set_pattern(pattern);
  made.flush_on(spdlog::level::info);
  return made;
}

spdlog::logger& logger(bool to_stderr) {
  static spdlog::logger out = make<spdlog::sinks::stdout_sink_mt>("%v");
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
