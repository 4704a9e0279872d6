// The resolved config as YAML.
#include <algorithm>

#include "grist/config/compare.h"
#include "grist/config/load.h"
#include "grist/core/check.h"

namespace grist {

namespace {

constexpr std::size_t kCommentColumn = 48;

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t dot = std::min(path.find('.', begin), path.size());
    parts.push_back(path.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return parts;
}

bool is_index(const std::string& part) {
  return !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
}

const std::string& origin_of(const LoadedConfig& loaded, const std::string& key) {
  static const std::string unknown = "set by the program";
  const auto found = std::find_if(loaded.origins.begin(), loaded.origins.end(),
                                  [&](const KeyOrigin& o) { return o.key == key; });
  return found == loaded.origins.end() ? unknown : found->origin;
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  return text;
}

// What follows from other values, for whoever loads the file with other values.
std::string derived_block(const LoadedConfig& loaded) {
  std::string out =
      "derived:  # a value above that still is the one here is worked out again when loaded\n";
  bool any = false;
  for (const KeyValue& kv : config_values(loaded.config)) {
    if (!is_derived(loaded, kv.key)) continue;
    out += fmt::format("  {}: {}\n", kv.key, kv.value);
    any = true;
  }
  return any ? out : "";
}

}  // namespace

std::string to_yaml(const LoadedConfig& loaded) {
  std::string out;
  std::vector<std::string> open;  // blocks and items that the last line was in
  for (const KeyValue& kv : config_values(loaded.config)) {
    const std::vector<std::string> parts = split(kv.key);
    std::size_t same = 0;
    while (same < open.size() && same + 1 < parts.size() && open[same] == parts[same]) ++same;
    bool item = false;  // the line begins a list item
    for (std::size_t depth = same; depth + 1 < parts.size(); ++depth) {
      if (is_index(parts[depth]))
        item = true;
      else
        out += fmt::format("{:{}}{}:\n", "", 2 * depth, parts[depth]);
    }
    const std::size_t depth = parts.size() - 1;
    std::string line =
        item ? fmt::format("{:{}}- {}: {}", "", 2 * (depth - 1), parts.back(), kv.value)
             : fmt::format("{:{}}{}: {}", "", 2 * depth, parts.back(), kv.value);
    out += fmt::format("{:<{}}  # {}\n", line, kCommentColumn, one_line(origin_of(loaded, kv.key)));
    open.assign(parts.begin(), parts.end() - 1);
  }
  return out + derived_block(loaded);
}

}  // namespace grist
