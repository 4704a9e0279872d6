#include "bind.h"

#include <algorithm>

#include "fields.h"
#include "grist/core/check.h"
#include "scalars.h"
#include "spelling.h"
#include "value_rules.h"

namespace grist::config {

namespace {

std::string join(const std::string& block, const std::string& name) {
  return block.empty() ? name : block + "." + name;
}

std::string read(const YamlNode& node, bool& out) {
  return read_bool(node, out);
}
std::string read(const YamlNode& node, std::int64_t& out) {
  return read_int(node, out);
}
std::string read(const YamlNode& node, double& out) {
  return read_double(node, out);
}
std::string read(const YamlNode& node, std::string& out) {
  return read_string(node, out);
}
std::string read(const YamlNode& node, std::optional<double>& out) {
  out.reset();
  if (node.kind == YamlNode::Kind::null) return "";
  double value = 0;
  const std::string problem = read_double(node, value);
  if (!problem.empty()) return problem + " or null";
  out = value;
  return "";
}
std::string read(const YamlNode& node, std::vector<std::int64_t>& out) {
  if (node.kind != YamlNode::Kind::sequence)
    return fmt::format("{}; want a list of whole numbers", shown(node));
  std::vector<std::int64_t> values(node.items.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (std::string problem = read_int(node.items[i], values[i]); !problem.empty())
      return fmt::format("item {}: {}", i, problem);
  out = std::move(values);
  return "";
}

std::string read(const YamlNode& node, const WordField& out) {
  std::string text;
  if (std::string problem = read_string(node, text); !problem.empty()) return problem;
  if (out.set(text)) return "";
  const std::string words = out.list();
  return fmt::format("{}; want {}{}", text.empty() ? "\"\"" : text,
                     words.find(',') == std::string::npos ? "" : "one of ", words);
}

struct ReadInto {
  const YamlNode& node;
  template <class T> std::string operator()(T* value) const { return read(node, *value); }
  std::string operator()(const WordField& field) const { return read(node, field); }
  std::string operator()(std::vector<DataSourceConfig>* /*sources*/) const { return ""; }
};

// One value into its slot.
class SlotReader {
 public:
  SlotReader(Problems& problems, std::map<std::string, Written, std::less<>>& written)
      : problems_(problems), written_(written) {}

  void operator()(const Slot& slot, const YamlNode& node, const Written& written) {
    written_.insert_or_assign(slot.key, written);
    if (auto* const* sources = std::get_if<std::vector<DataSourceConfig>*>(&slot.target)) {
      read_sources(slot.key, node, written, **sources);
      return;
    }
    std::string problem = std::visit(ReadInto{node}, slot.target);
    if (problem.empty()) problem = check_limits(slot);
    if (problem.empty()) return;
    if (written.spelled != slot.key) problem += fmt::format(" (written as {})", written.spelled);
    problems_.add(node.where, slot.key, problem);
  }

 private:
  void read_sources(const std::string& key, const YamlNode& node, const Written& written,
                    std::vector<DataSourceConfig>& out) {
    out.clear();
    std::erase_if(written_, [&](const auto& w) { return w.first.starts_with(key + "."); });
    if (node.kind != YamlNode::Kind::sequence) {
      problems_.add(written.where, key,
                    fmt::format("{}; want a list: [{{path: ..., weight: ...}}]", shown(node)));
      return;
    }
    out.resize(node.items.size());
    for (std::size_t i = 0; i < out.size(); ++i)
      read_source(join(key, std::to_string(i)), node.items[i], out[i]);
  }

  void read_source(const std::string& key, const YamlNode& node, DataSourceConfig& out) {
    if (node.kind != YamlNode::Kind::map) {
      problems_.add(node.where, key,
                    fmt::format("{}; want a block with path, weight, name", shown(node)));
      return;
    }
    const std::vector<Slot> slots = slots_of(out, key);
    std::vector<std::string> keys;
    for (const Slot& slot : slots) keys.push_back(slot.key);
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      const std::string path = join(key, node.keys[i]);
      const auto slot =
          std::find_if(slots.begin(), slots.end(), [&](const Slot& s) { return s.key == path; });
      if (slot == slots.end())
        problems_.add(node.key_where[i], path, unknown_key(path, keys));
      else
        (*this)(*slot, node.items[i], {node.key_where[i], path});
    }
    if (node.find("path") == nullptr)
      problems_.add(node.where, join(key, "path"), "missing; every source needs its path");
  }

  Problems& problems_;
  std::map<std::string, Written, std::less<>>& written_;
};

}  // namespace

Binder::Binder(Problems& problems) : problems_(problems) {
  Config config;
  for (const Slot& slot : slots_of(config)) {
    keys_.push_back(slot.key);
    if (std::holds_alternative<std::vector<std::int64_t>*>(slot.target) ||
        std::holds_alternative<std::vector<DataSourceConfig>*>(slot.target))
      list_keys_.push_back(slot.key);
  }
}

bool Binder::is_key(std::string_view path) const {
  return std::find(keys_.begin(), keys_.end(), path) != keys_.end();
}

bool Binder::is_block(std::string_view path) const {
  const std::string prefix = std::string(path) + ".";
  return is_alias_block(path) || std::any_of(keys_.begin(), keys_.end(), [&](const auto& key) {
           return key.starts_with(prefix);
         });
}

void Binder::add(const std::string& key, Written written, YamlNode node) {
  const std::string_view none = meaning_of_null(key);
  if (node.kind == YamlNode::Kind::null && !none.empty()) {
    node.kind = YamlNode::Kind::scalar;
    node.text = none;
  }
  entries_[key].push_back({layer_, std::move(written), std::move(node)});
}

namespace {

// Is the node the value that `text` is in YAML? Numbers may be written in any way.
bool is_value(const YamlNode& node, const std::string& text) {
  switch (node.kind) {
    case YamlNode::Kind::null: return text == "null";
    case YamlNode::Kind::sequence: return text == "[]" && node.items.empty();
    case YamlNode::Kind::map: return false;
    case YamlNode::Kind::scalar: break;
  }
  YamlNode wanted = node;
  wanted.text = text;
  double number = 0, other = 0;
  return node.text == text || (read_double(node, number).empty() &&
                               read_double(wanted, other).empty() && number == other);
}

}  // namespace

void Binder::check_fixed(const std::string& spelled, Where where, const YamlNode& value) {
  const FixedKey& fixed = *find_fixed(spelled);
  std::string list;
  for (int i = 0; !nth_word(fixed.values, i).empty(); ++i) {
    const std::string_view accepted = nth_word(fixed.values, i);
    if (is_value(value, std::string(accepted))) return;
    list += fmt::format("{}{}", i == 0 ? "" : " or ", accepted);
  }
  problems_.add(where, spelled, fmt::format("{}; only {}: {}", shown(value), list, fixed.why));
}

void Binder::add_bias_switch(Where where, const YamlNode& value) {
  bool on = false;
  if (const std::string problem = read_bool(value, on); !problem.empty())
    return problems_.add(where, kBiasSwitch, problem);
  bias_switch_ = BiasSwitch{.on = on, .where = where};
}

void Binder::collect_entry(const std::string& spelled, Where where, const YamlNode& value) {
  if (is_key(spelled)) return add(spelled, {where, spelled}, value);
  if (is_block(spelled)) {
    if (value.kind == YamlNode::Kind::map) return collect(value, spelled);
    problems_.add(where, spelled, fmt::format("{}; want a block of keys", shown(value)));
    return;
  }
  if (const Alias* alias = find_alias(spelled)) {
    if (!alias->note.empty())
      notes_.push_back(fmt::format("{}: {}: {}", problems_.str(where), spelled, alias->note));
    return add(std::string(alias->key), {where, spelled}, value);
  }
  if (spelled == kBiasSwitch) return add_bias_switch(where, value);
  if (find_fixed(spelled) != nullptr) return check_fixed(spelled, where, value);
  const RefusedKey* refused = find_refused(spelled);
  problems_.add(where, spelled,
                refused != nullptr ? std::string(refused->why) : unknown_key(spelled, keys_));
}

void Binder::collect(const YamlNode& node, const std::string& path) {
  for (std::size_t i = 0; i < node.items.size(); ++i)
    collect_entry(join(path, node.keys[i]), node.key_where[i], node.items[i]);
}

void Binder::add_file(const YamlNode& root) {
  if (root.kind == YamlNode::Kind::map) return collect(root, "");
  problems_.add(
      root.where, "",
      root.kind == YamlNode::Kind::null
          ? "empty; want a configuration (see configs/run/quickstart.yaml)"
          : fmt::format("{}; want a block of keys such as model, data, train", shown(root)));
}

namespace {

// The path behind a list's key: "0" or "0.weight".
struct ItemPath {
  std::string index;
  std::string field;  // empty: the whole item
};

ItemPath split_item_path(const std::string& rest) {
  const auto dot = rest.find('.');
  return {rest.substr(0, dot), dot == std::string::npos ? "" : rest.substr(dot + 1)};
}

void set_field(YamlNode& item, const std::string& field, const YamlNode& value) {
  const auto at = static_cast<std::size_t>(std::find(item.keys.begin(), item.keys.end(), field) -
                                           item.keys.begin());
  if (at == item.keys.size()) {
    item.keys.push_back(field);
    item.key_where.push_back(value.where);
    item.items.push_back(value);
  } else {
    item.items[at] = value;
    item.key_where[at] = value.where;
  }
}

// The item to change; one behind the last is added. Null: there is no such item.
YamlNode* item_of(YamlNode& list, const std::string& index_text, Where where) {
  YamlNode number;
  number.kind = YamlNode::Kind::scalar;
  number.text = index_text;
  std::int64_t index = -1;
  const auto size = static_cast<std::int64_t>(list.items.size());
  if (!read_int(number, index).empty() || index < 0 || index > size) return nullptr;
  if (index == size) {
    YamlNode item;
    item.kind = YamlNode::Kind::map;
    item.where = where;
    list.items.push_back(std::move(item));
  }
  return &list.items[static_cast<std::size_t>(index)];
}

}  // namespace

// "data.train.0.path" changes one item of the list that the layers before gave.
bool Binder::set_in_list(const std::string& path, const YamlNode& value) {
  const auto key =
      std::find_if(list_keys_.begin(), list_keys_.end(),
                   [&](const std::string& list_key) { return path.starts_with(list_key + "."); });
  if (key == list_keys_.end()) return false;
  const auto before = entries_.find(*key);
  YamlNode list;
  list.kind = YamlNode::Kind::sequence;
  list.where = value.where;
  if (before != entries_.end()) list = before->second.back().node;
  const ItemPath item_path = split_item_path(path.substr(key->size() + 1));
  YamlNode* item =
      list.kind == YamlNode::Kind::sequence ? item_of(list, item_path.index, value.where) : nullptr;
  if (item == nullptr) {
    problems_.add(value.where, path,
                  fmt::format("{} is no item of {}, which has {}; want 0 to {}", item_path.index,
                              *key, list.items.size(), list.items.size()));
    return true;
  }
  if (item_path.field.empty())
    *item = value;
  else
    set_field(*item, item_path.field, value);
  const Where where = before == entries_.end() ? value.where : before->second.back().written.where;
  add(*key, {where, *key}, std::move(list));
  return true;
}

namespace {

void move_to(YamlNode& node, Where where) {
  node.where = where;
  for (Where& w : node.key_where) w = where;
  for (YamlNode& item : node.items) move_to(item, where);
}

}  // namespace

void Binder::add_set(std::string_view argument) {
  ++layer_;
  const int source = problems_.add_source(fmt::format("--set {}", argument));
  const Where where{source, 0};
  const auto equals = argument.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    problems_.add(where, "", "want key=value, such as optim.lr=1e-3");
    return;
  }
  const std::string path(argument.substr(0, equals));
  const std::string_view text = argument.substr(equals + 1);
  YamlNode value;
  value.kind = YamlNode::Kind::scalar;
  value.quoted = true;  // nothing after '=': empty text, not null
  if (!text.empty() && !parse_yaml(text, source, problems_, value)) return;
  move_to(value, where);
  if (!set_in_list(path, value)) collect_entry(path, where, value);
}

Bound Binder::bind() {
  Bound bound;
  SlotReader reader(problems_, bound.written);
  for (const Slot& slot : slots_of(bound.config)) {
    const auto found = entries_.find(slot.key);
    if (found == entries_.end()) continue;
    const Entry* before = nullptr;
    std::string before_text;
    for (const Entry& entry : found->second) {
      reader(slot, entry.node, entry.written);
      const std::string now = text_of(slot.target);
      if (before != nullptr && before->layer == entry.layer && now != before_text)
        problems_.add(entry.written.where, slot.key,
                      fmt::format("{} {} here, but {} {} at {}; they mean the same key",
                                  entry.written.spelled, now, before->written.spelled, before_text,
                                  problems_.str(before->written.where)));
      before = &entry;
      before_text = now;
    }
  }
  bound.notes = notes_;
  bound.bias_switch = bias_switch_;
  return bound;
}

}  // namespace grist::config
