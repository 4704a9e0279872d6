#pragma once
// Lines for people, on stderr for warnings and errors, on stdout for the rest. One line an event.
// Only rank 0 speaks, unless a rank has something that only it can say: from_rank().
#include <fmt/core.h>

#include <string>

namespace grist::log {

enum class Level { info, warn, error };
void write(Level level, const std::string& line);

// Of this process, for all threads; 0 at first. Other ranks' lines are dropped.
void set_rank(int rank);
// A warning of this rank alone, with "rank R: " in front when it is not rank 0.
void from_rank(const std::string& line);

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
