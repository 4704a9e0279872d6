#include "derived_block.h"

#include <algorithm>

#include "fields.h"
#include "grist/core/check.h"
#include "scalars.h"
#include "spelling.h"

namespace grist::config {

namespace {

constexpr std::string_view kBlock = "derived";

// Position in a map by name, in a list by number; size() when there is none.
std::size_t position(const YamlNode& node, std::string_view name) {
  if (node.kind == YamlNode::Kind::map)
    return static_cast<std::size_t>(std::find(node.keys.begin(), node.keys.end(), name) -
                                    node.keys.begin());
  for (std::size_t i = 0; node.kind == YamlNode::Kind::sequence && i < node.items.size(); ++i)
    if (std::to_string(i) == name) return i;
  return node.items.size();
}

void erase_key(YamlNode& map, std::size_t i) {
  const auto at = static_cast<std::ptrdiff_t>(i);
  map.keys.erase(map.keys.begin() + at);
  map.key_where.erase(map.key_where.begin() + at);
  map.items.erase(map.items.begin() + at);
}

// Erases the value at `path` when it is `value`.
void forget(YamlNode& node, std::string_view path, const YamlNode& value) {
  const auto dot = path.find('.');
  const std::size_t i = position(node, path.substr(0, dot));
  if (i == node.items.size()) return;
  if (dot != std::string_view::npos) return forget(node.items[i], path.substr(dot + 1), value);
  if (node.kind == YamlNode::Kind::map && node.items[i].kind == value.kind &&
      node.items[i].text == value.text)
    erase_key(node, i);
}

std::vector<std::string> all_keys() {
  Config config;
  std::vector<std::string> keys;
  for (const Slot& slot : slots_of(config)) keys.push_back(slot.key);
  return keys;
}

bool is_source_name(std::string_view key) {
  return (key.starts_with("data.train.") || key.starts_with("data.validation.")) &&
         key.ends_with(".name");
}

}  // namespace

void take_derived_block(YamlNode& root, Derived what, Problems& problems) {
  if (root.kind != YamlNode::Kind::map) return;
  const std::size_t at = position(root, kBlock);
  if (at == root.items.size()) return;
  const YamlNode block = root.items[at];
  erase_key(root, at);
  if (block.kind != YamlNode::Kind::map) {
    problems.add(block.where, kBlock, fmt::format("{}; want a block of keys", shown(block)));
    return;
  }
  const std::vector<std::string> keys = all_keys();
  for (std::size_t i = 0; i < block.items.size(); ++i) {
    const std::string& key = block.keys[i];
    if (std::find(keys.begin(), keys.end(), key) == keys.end() && !is_source_name(key))
      problems.add(block.key_where[i], fmt::format("{}.{}", kBlock, key), unknown_key(key, keys));
    else if (what == Derived::work_out_again)
      forget(root, key, block.items[i]);
  }
}

}  // namespace grist::config
