#pragma once
// Strict reading of single YAML values. Each reader gives an empty string, or what is wrong.
#include <cstdint>
#include <string>

#include "yaml_tree.h"

namespace grist::config {

std::string read_bool(const YamlNode& node, bool& out);
std::string read_int(const YamlNode& node, std::int64_t& out);
std::string read_double(const YamlNode& node, double& out);  // finite
std::string read_string(const YamlNode& node, std::string& out);

// A plain scalar that YAML readers take for a boolean, a number or null.
bool looks_like_another_type(const std::string& text);

// For messages: the value as written, shortened.
std::string shown(const YamlNode& node);

}  // namespace grist::config
