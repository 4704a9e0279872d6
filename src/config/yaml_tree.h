#pragma once
// YAML text as a plain tree that keeps lines and repeated keys, which yaml-cpp's own Node drops
// silently. The one place that knows yaml-cpp; its limits stop alias bombs and endless nesting.
#include <string>
#include <string_view>
#include <vector>

#include "problems.h"

namespace grist::config {

struct YamlNode {
  enum class Kind { null, scalar, sequence, map };
  Kind kind = Kind::null;
  bool quoted = false;  // a scalar in quotes is text whatever it looks like
  std::string text;     // scalar only
  Where where;
  std::vector<std::string> keys;  // map only: keys[i] and key_where[i] belong to items[i]
  std::vector<Where> key_where;
  std::vector<YamlNode> items;

  const YamlNode* find(std::string_view key) const;
};

const char* name_of(YamlNode::Kind kind);

// The text's only document. What is not YAML is added to `problems` and gives false. A repeated key
// is a problem too, but the tree is still made, with its first value.
bool parse_yaml(std::string_view text, int source, Problems& problems, YamlNode& root);

}  // namespace grist::config
