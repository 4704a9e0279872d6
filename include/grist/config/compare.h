#pragma once
// Configs as lists of values: for printing, for comparing a run with its checkpoint, for a
// fingerprint.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grist/config/config.h"

namespace grist {

struct KeyValue {
  std::string key;    // "data.train.0.path"
  std::string value;  // as YAML on one line
};

// Every key in the order of the structs. A list of sources gives the keys of its items; an empty
// one gives itself with "[]".
std::vector<KeyValue> config_values(const Config& config);

struct ConfigDifference {
  std::string key;
  std::string before;  // empty: not there
  std::string after;
  bool architecture = false;
};
std::vector<ConfigDifference> config_differences(const Config& before, const Config& after);

// Keys that decide which tensors there are and what they compute: they must be as they were when a
// checkpoint is loaded. All others may change between two starts of a run.
bool is_architecture_key(std::string_view key);

}  // namespace grist
