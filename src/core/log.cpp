#include "grist/core/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>

namespace grist::log {

namespace {
std::atomic<bool> quiet{false};

spdlog::logger& logger(bool to_stderr) {
  static spdlog::logger out("grist", std::make_shared<spdlog::sinks::stdout_sink_mt>());
  static spdlog::logger err("grist", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  spdlog::logger& chosen = to_stderr ? err : out;
  chosen.set_pattern(to_stderr ? "%l: %v" : "%v");
  chosen.flush_on(spdlog::level::info);
  return chosen;
}
}  // namespace

void set_quiet(bool value) {
  quiet = value;
}

void write(Level level, const std::string& line) {
  if (level == Level::info) {
    if (!quiet) logger(false).info(line);
  } else if (level == Level::warn) {
    logger(true).warn(line);
  } else {
    logger(true).error(line);
  }
}

}  // namespace grist::log
