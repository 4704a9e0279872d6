#include "grist/core/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace grist::log {

namespace {
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

void write(Level level, const std::string& line) {
  if (level == Level::info) {
    logger(false).info(line);
  } else if (level == Level::warn) {
    logger(true).warn(line);
  } else {
    logger(true).error(line);
  }
}

}  // namespace grist::log
