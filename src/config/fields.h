#pragma once
// The config structs as a flat list of keys: "model.moe.granularity" -> int64. Built from their
// `fields`, so that a key exists in loading, printing and comparing as soon as it is in its struct.
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "grist/config/config.h"

namespace grist::config {

using Target = std::variant<bool*, std::int64_t*, double*, std::string*, std::optional<double>*,
                            std::vector<std::int64_t>*, std::vector<DataSourceConfig>*>;

struct Slot {
  std::string key;
  Target target;
};

// In the order of the structs. The slots point into the argument.
std::vector<Slot> slots_of(Config& config);
std::vector<Slot> slots_of(DataSourceConfig& source, const std::string& prefix);

// The value as YAML on one line; lists of sources give "[...]" only when empty.
std::string text_of(const Target& target);
std::string quoted_if_needed(const std::string& text);

}  // namespace grist::config
