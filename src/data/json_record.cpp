#include "json_record.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <vector>

#include "grist/core/check.h"
#include "grist/core/utf8.h"

namespace grist {

namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// The value of four hexadecimal digits, or -1.
std::int32_t hex4(std::string_view digits) {
  if (digits.size() < 4) return -1;
  std::int32_t code = 0;
  for (const char c : digits.substr(0, 4)) {
    const bool letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!letter && !is_digit(c)) return -1;
    code = code * 16 + (is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return code;
}

// Of eight bytes, how many stand before the first quote, backslash or control character (the bit
// tricks of "Hacker's Delight", 6-1: a false alarm comes behind a true one only).
std::size_t plain_bytes(std::uint64_t bytes) {
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
  constexpr std::uint64_t kHigh = 0x8080808080808080ULL;
  const auto zero = [](std::uint64_t v) { return (v - kOnes) & ~v & kHigh; };
  const std::uint64_t control = (bytes - kOnes * 0x20) & ~bytes & kHigh;
  const std::uint64_t special =
      zero(bytes ^ (kOnes * '"')) | zero(bytes ^ (kOnes * '\\')) | control;
  return static_cast<std::size_t>(std::countr_zero(special)) / 8;
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
    if (!take('"')) return wrong("a string was expected");
    for (;;) {
      std::uint64_t bytes = 0;
      for (; at_ + 8 <= line_.size(); at_ += 8) {
        std::memcpy(&bytes, line_.data() + at_, 8);
        const std::size_t plain = plain_bytes(bytes);
        if (plain == 8) continue;
        at_ += plain;
        break;
      }
      if (at_ == line_.size()) return wrong("");
      const char c = line_[at_];
      if (static_cast<unsigned char>(c) < 0x20) return wrong("control character in a string");
      ++at_;
      if (c == '"') return true;
      if (c == '\\' && !escape()) return false;
    }
  }

  bool escape() {
    const char c = peek();
    if (c == 'u') {
      if (hex4(line_.substr(at_ + 1)) < 0) return wrong("bad \\u escape");
      at_ += 5;
      return true;
    }
    if (c == '\0' || std::strchr("\"\\/bfnrt", c) == nullptr) return wrong("unknown escape");
    ++at_;
    return true;
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

// The code point of the \u escape whose digits begin at `at`, which moves behind it; -1: half of a
// pair.
std::int32_t code_point(std::string_view raw, std::size_t& at) {
  const std::int32_t code = hex4(raw.substr(at));
  at += 4;
  if (code < 0xD800 || code >= 0xE000) return code;
  if (code >= 0xDC00 || raw.substr(at, 2) != "\\u") return -1;
  const std::int32_t low = hex4(raw.substr(at + 2));
  if (low < 0xDC00 || low >= 0xE000) return -1;
  at += 6;
  return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

char unescaped(char c) {
  switch (c) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    default: return c;
  }
}

}  // namespace

std::string scan_object(std::string_view line, std::vector<JsonMember>& members) {
  members.clear();
  return Scanner(line).members(members);
}

const JsonMember* last_member(std::span<const JsonMember> members, std::string_view name) {
  std::string buffer;
  for (auto member = members.rbegin(); member != members.rend(); ++member) {
    std::string_view text;
    if (string_value(member->name, buffer, text) && text == name) return &*member;
  }
  return nullptr;
}

bool string_value(std::string_view raw, std::string& buffer, std::string_view& text) {
  raw = raw.substr(1, raw.size() - 2);
  std::size_t escape = raw.find('\\');
  text = raw;
  if (escape == std::string_view::npos) return true;
  buffer.clear();
  std::size_t at = 0;
  for (; escape != std::string_view::npos; escape = raw.find('\\', at)) {
    buffer.append(raw, at, escape - at);
    at = escape + 2;
    if (raw[escape + 1] != 'u') {
      buffer += unescaped(raw[escape + 1]);
      continue;
    }
    const std::int32_t code = code_point(raw, at);
    if (code < 0) return false;
    unicode::append_utf8(buffer, static_cast<char32_t>(code));
  }
  buffer.append(raw, at);
  text = buffer;
  return true;
}

}  // namespace grist
