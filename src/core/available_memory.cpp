// How much memory is left: of the machine, and of the control groups that this process is in.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "grist/core/host.h"

namespace grist {

namespace {

namespace fs = std::filesystem;
constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

// "KEY NUMBER" or "KEY: NUMBER kB" lines of a file of the kernel's.
std::optional<std::size_t> number_of(const fs::path& file, const std::string& key) {
  std::ifstream in(file);
  for (std::string word; in >> word;) {
    std::size_t value = 0;
    if (word == key && in >> value) return value;
  }
  return {};
}

std::optional<std::size_t> only_number(const fs::path& file) {
  std::ifstream in(file);
  std::size_t value = 0;
  if (in >> value) return value;
  return {};  // "max", or no such file
}

// What one control group leaves; files it has in memory can go. Both of its versions.
std::size_t left_in_group(const fs::path& group) {
  const bool second = fs::exists(group / "memory.current");
  const auto most = only_number(group / (second ? "memory.max" : "memory.limit_in_bytes"));
  const auto now = only_number(group / (second ? "memory.current" : "memory.usage_in_bytes"));
  if (!most || !now) return kUnlimited;
  const std::size_t files = number_of(group / "memory.stat", "inactive_file").value_or(0) +
                            number_of(group / "memory.stat", "active_file").value_or(0);
  const std::size_t used = *now - std::min(*now, files);
  return *most > used ? *most - used : 0;
}

// Of the group and of those that it is in.
std::size_t left_in_groups(const fs::path& root, fs::path group) {
  std::size_t left = left_in_group(root);
  for (group = group.relative_path(); !group.empty(); group = group.parent_path())
    left = std::min(left, left_in_group(root / group));
  return left;
}

std::size_t left_in_own_groups() {
  std::ifstream in("/proc/self/cgroup");
  std::size_t left = kUnlimited;
  for (std::string line; std::getline(in, line);) {  // "0::/a/b", "4:memory:/a/b"
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    if (controllers.empty()) left = std::min(left, left_in_groups("/sys/fs/cgroup", group));
    if (controllers == "memory")
      left = std::min(left, left_in_groups("/sys/fs/cgroup/memory", group));
  }
  return left;
}

}  // namespace

std::size_t available_memory() {
  std::size_t left = kUnlimited;
  const auto kib = [](const char* key) { return number_of("/proc/meminfo", key); };
  if (const auto machine = kib("MemAvailable:"))
    left = (*machine + kib("SwapFree:").value_or(0)) * 1024;
  return std::min(left, left_in_own_groups());
}

}  // namespace grist
