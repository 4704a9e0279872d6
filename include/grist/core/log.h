#pragma once
// Lines for people, on stderr for warnings and errors, on stdout for the rest. One line an event;
// only rank 0 speaks unless a rank has something only it can say.
#include <fmt/core.h>

#include <string>

namespace grist::log {

enum class Level { info, warn, error };
void write(Level level, const std::string& line);

template <class... Args> void info(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args> void warn(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args> void error(fmt::format_string<Args...> format, Args&&... args) {
  write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace grist::log
