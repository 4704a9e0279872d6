#include "json_record.h"

#include <vector>

#include "grist/core/check.h"
#include "grist/core/json_string.h"

namespace grist {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

class Scanner {
 public:
  explicit Scanner(std::string_view line) : line_(line) {}

  std::string members(std::vector<JsonMember>& out) {
    skip_space();
    if (peek() != '{') {
      if (value()) return "not a JSON object";
      return problem();
    }
    if (!object(out)) return problem();
    skip_space();
    if (at_ != line_.size()) {
      wrong_ = "something stands behind the object";
      return problem();
    }
    return {};
  }

 private:
  std::string problem() const {
    return fmt::format("not valid JSON: {} at byte {} of the line", wrong_, at_ + 1);
  }
  bool wrong(const char* what) {
    wrong_ = at_ == line_.size() ? "it ends too early" : what;
    return false;
  }
  char peek() const { return at_ < line_.size() ? line_[at_] : '\0'; }
  void skip_space() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\r' || peek() == '\n') ++at_;
  }
  bool take(char c) {
    skip_space();
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  bool word(std::string_view text) {
    if (!line_.substr(at_).starts_with(text)) return wrong("unknown word");
    at_ += text.size();
    return true;
  }

  bool string() {
    skip_space();
    if (peek() != '"') return wrong("a string was expected");
    const char* problem = skip_json_string(line_, at_);
    return problem == nullptr || wrong(problem);
  }

  bool digits() {
    if (!is_digit(peek())) return wrong("a digit was expected");
    while (is_digit(peek())) ++at_;
    return true;
  }

  bool number() {
    if (peek() == '-') ++at_;
    if (peek() == 'I') return word("Infinity");
    if (peek() == '0') {
      ++at_;
    } else if (!digits()) {
      return false;
    }
    if (peek() == '.') {
      ++at_;
      if (!digits()) return false;
    }
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      if (!digits()) return false;
    }
    return true;
  }

  bool scalar() {
    switch (peek()) {
      case '"': return string();
      case 't': return word("true");
      case 'f': return word("false");
      case 'n': return word("null");
      case 'N': return word("NaN");
      default: return peek() == '-' || is_digit(peek()) ? number() : wrong("a value was expected");
    }
  }

  // Any value, without recursion: `open_` holds the brackets that are open. After a scalar or a
  // closing bracket comes a comma or another closing bracket.
  bool value() {
    open_.clear();
    for (;;) {
      skip_space();
      const char c = peek();
      if (c == '{' || c == '[') {
        ++at_;
        open_.push_back(c);
        if (!take(c == '{' ? '}' : ']')) {
          if (c == '{' && !member_name()) return false;
          continue;
        }
        open_.pop_back();
      } else if (!scalar()) {
        return false;
      }
      if (!close()) return false;
      if (open_.empty()) return true;
      if (open_.back() == '{' && !member_name()) return false;
    }
  }

  // Closes what ends here; a comma is taken where more follows.
  bool close() {
    while (!open_.empty()) {
      if (take(',')) return true;
      if (!take(open_.back() == '{' ? '}' : ']')) return wrong("',' or a bracket was expected");
      open_.pop_back();
    }
    return true;
  }

  bool member_name() {
    if (!string()) return false;
    return take(':') || wrong("':' was expected");
  }

  // The object of the line, whose members are looked at.
  bool object(std::vector<JsonMember>& out) {
    ++at_;
    if (take('}')) return true;
    for (;;) {
      skip_space();
      const std::size_t begin = at_;
      if (!string()) return false;
      const std::string_view name = line_.substr(begin, at_ - begin);
      if (!take(':')) return wrong("':' was expected");
      skip_space();
      const std::size_t from = at_;
      if (!value()) return false;
      out.push_back({.name = name, .value = line_.substr(from, at_ - from)});
      if (take('}')) return true;
      if (!take(',')) return wrong("',' or '}' was expected");
    }
  }

  std::string_view line_;
  std::size_t at_ = 0;
  const char* wrong_ = "";
  std::vector<char> open_;
};

}  // namespace

std::string scan_object(std::string_view line, std::vector<JsonMember>& members) {
  members.clear();
  return Scanner(line).members(members);
}

const JsonMember* last_member(std::span<const JsonMember> members, std::string_view name) {
  std::string buffer;
  for (auto member = members.rbegin(); member != members.rend(); ++member) {
    std::string_view text;
    if (json_string_value(member->name, buffer, text) && text == name) return &*member;
  }
  return nullptr;
}

}  // namespace grist
