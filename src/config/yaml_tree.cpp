#include "yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <set>
#include <sstream>

#include "grist/core/check.h"

namespace grist::config {

namespace {

constexpr std::size_t kMaxNodes = 20000;  // after aliases are expanded
constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxBytes = 1 << 20;

struct NotYaml {
  int line;
  std::string problem;
};

int line_of(const YAML::Mark& mark) {
  return mark.line + 1;
}

bool is_null_word(std::string_view text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

std::size_t count_nodes(const YamlNode& node) {
  std::size_t n = 1 + node.keys.size();
  for (const YamlNode& item : node.items) n += count_nodes(item);
  return n;
}

class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(int source, YamlNode& root) : source_(source), root_(root) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++documents_ > 1) throw NotYaml{line_of(mark), "a second document; want one"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    complete(start(YamlNode::Kind::null, mark, ""), anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end())
      throw NotYaml{line_of(mark), "an alias of something that contains it"};
    YamlNode node = found->second;
    count(mark, count_nodes(node));
    if (stack_.size() + depth(node) > kMaxDepth) throw_too_deep(mark);
    node.where.line = line_of(mark);
    complete(std::move(node), 0);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = start(YamlNode::Kind::scalar, mark, tag);
    node.quoted = tag == "!";
    node.text = value;
    if (!node.quoted && is_null_word(value)) node.kind = YamlNode::Kind::null;
    complete(std::move(node), anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    open(start(YamlNode::Kind::sequence, mark, tag), anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    open(start(YamlNode::Kind::map, mark, tag), anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    YamlNode node;
    YAML::anchor_t anchor = 0;
    bool has_key = false;
    std::string key;
    Where key_where;
  };

  void count(const YAML::Mark& mark, std::size_t nodes) {
    nodes_ += nodes;
    if (nodes_ > kMaxNodes)
      throw NotYaml{line_of(mark), fmt::format("more than {} values", kMaxNodes)};
  }
  [[noreturn]] static void throw_too_deep(const YAML::Mark& mark) {
    throw NotYaml{line_of(mark), fmt::format("nested deeper than {} levels", kMaxDepth)};
  }
  static std::size_t depth(const YamlNode& node) {
    std::size_t deepest = 0;
    for (const YamlNode& item : node.items) deepest = std::max(deepest, depth(item));
    return deepest + 1;
  }
  YamlNode start(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!")
      throw NotYaml{line_of(mark), fmt::format("tag {}; tags have no use here", tag)};
    count(mark, 1);
    YamlNode node;
    node.kind = kind;
    node.where = {source_, line_of(mark)};
    return node;
  }
  void open(YamlNode node, YAML::anchor_t anchor) {
    if (stack_.size() >= kMaxDepth)
      throw NotYaml{node.where.line, fmt::format("nested deeper than {} levels", kMaxDepth)};
    Frame frame;
    frame.node = std::move(node);
    frame.anchor = anchor;
    stack_.push_back(std::move(frame));
  }
  void close() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    complete(std::move(frame.node), frame.anchor);
  }
  void complete(YamlNode node, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = node;
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& top = stack_.back();
    if (top.node.kind == YamlNode::Kind::map && !top.has_key) {
      if (node.kind != YamlNode::Kind::scalar)
        throw NotYaml{node.where.line, fmt::format("a key that is {}", name_of(node.kind))};
      top.key = node.text;
      top.key_where = node.where;
      top.has_key = true;
      return;
    }
    if (top.node.kind == YamlNode::Kind::map) {
      top.node.keys.push_back(std::move(top.key));
      top.node.key_where.push_back(top.key_where);
      top.has_key = false;
    }
    top.node.items.push_back(std::move(node));
  }

  int source_;
  YamlNode& root_;
  int documents_ = 0;
  std::size_t nodes_ = 0;
  std::vector<Frame> stack_;
  std::map<YAML::anchor_t, YamlNode> anchors_;
};

// Bytes after the first of a UTF-8 character, or -1.
int continuation_bytes(unsigned char first) {
  if (first < 0x80) return 0;
  if (first >= 0xC2 && first < 0xE0) return 1;
  if (first >= 0xE0 && first < 0xF0) return 2;
  if (first >= 0xF0 && first < 0xF5) return 3;
  return -1;
}

// yaml-cpp reads anything; bytes that are not text are refused before it sees them.
void require_text(std::string_view text) {
  if (text.size() > kMaxBytes)
    throw NotYaml{0,
                  fmt::format("{} bytes; a configuration has at most {}", text.size(), kMaxBytes)};
  int line = 1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    line += c == '\n' ? 1 : 0;
    if (c == 0x7F || (c < 0x20 && c != '\n' && c != '\r' && c != '\t'))
      throw NotYaml{line, fmt::format("not a text file: byte {:#04x}", c)};
    const int more = continuation_bytes(c);
    if (more < 0) throw NotYaml{line, fmt::format("not UTF-8 text: byte {:#04x}", c)};
    for (int k = 0; k < more; ++k) {
      ++i;
      if (i >= text.size() || (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80)
        throw NotYaml{line, "not UTF-8 text: a character is cut short"};
    }
  }
}

void drop_repeated_keys(YamlNode& node, const std::string& path, Problems& problems) {
  std::map<std::string, Where> seen;
  for (std::size_t i = 0; i < node.items.size();) {
    const bool map = node.kind == YamlNode::Kind::map;
    const std::string name = map ? node.keys[i] : std::to_string(i);
    const std::string key = path.empty() ? name : path + "." + name;
    if (map) {
      const auto [first, is_new] = seen.emplace(name, node.key_where[i]);
      if (!is_new) {
        problems.add(node.key_where[i], key,
                     fmt::format("duplicate key; the first is at {}", problems.str(first->second)));
        const auto at = static_cast<std::ptrdiff_t>(i);
        node.keys.erase(node.keys.begin() + at);
        node.key_where.erase(node.key_where.begin() + at);
        node.items.erase(node.items.begin() + at);
        continue;
      }
    }
    drop_repeated_keys(node.items[i], key, problems);
    ++i;
  }
}

void build(std::string_view text, int source, YamlNode& root) {
  require_text(text);
  std::istringstream stream{std::string(text)};
  YAML::Parser parser(stream);
  TreeBuilder builder(source, root);
  while (parser.HandleNextDocument(builder)) {
  }
}

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (keys[i] == key) return &items[i];
  return nullptr;
}

const char* name_of(YamlNode::Kind kind) {
  switch (kind) {
    case YamlNode::Kind::null: return "null";
    case YamlNode::Kind::scalar: return "a single value";
    case YamlNode::Kind::sequence: return "a list";
    case YamlNode::Kind::map: return "a block of keys";
  }
  return "?";
}

bool parse_yaml(std::string_view text, int source, Problems& problems, YamlNode& root) {
  root.where = {source, 0};
  try {
    build(text, source, root);
  } catch (const NotYaml& e) {
    problems.add({source, e.line}, "", e.problem);
    return false;
  } catch (const YAML::Exception& e) {
    problems.add({source, e.mark.line + 1}, "",
                 fmt::format("not YAML: {} (column {})", e.msg, e.mark.column + 1));
    return false;
  } catch (const std::logic_error& e) {  // yaml-cpp's own containers, on some broken input
    problems.add({source, 0}, "", fmt::format("not YAML: {}", e.what()));
    return false;
  }
  drop_repeated_keys(root, "", problems);
  return true;
}

}  // namespace grist::config
