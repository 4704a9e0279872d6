#include "pattern.h"

#include <algorithm>
#include <map>

#include "code_set.h"
#include "grist/core/check.h"
#include "unicode.h"

namespace grist {

namespace {

using unicode::CodeSet;

class Parser {
 public:
  Parser(std::string_view pattern, std::string_view where) : pattern_(pattern), where_(where) {
    if (unicode::valid_prefix(pattern, 0) != pattern.size()) invalid("malformed UTF-8");
    if (take("(?i)")) ignore_case_.back() = true;
    while (at_ < pattern_.size()) item();
    if (ignore_case_.size() != 1) invalid("a ( without )");
  }

  // Each atom's place in the text is an index into sets().
  struct Piece {
    std::string text;
    std::ptrdiff_t set = -1;  // -1: the text as it is
  };
  const std::vector<Piece>& pieces() const { return pieces_; }
  const std::vector<CodeSet>& sets() const { return sets_; }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail(ExitCode::bad_data, "{}: the pattern uses {}, which grist does not support", where_, what);
  }
  [[noreturn]] void invalid(std::string_view what) const {
    fail(ExitCode::bad_data, "{}: not a valid pattern: {}", where_, what);
  }
  std::string_view rest() const { return pattern_.substr(at_); }
  bool take(std::string_view word) {
    if (!rest().starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  bool ignores_case() const { return ignore_case_.back(); }

  void item() {
    const char c = pattern_[at_];
    if (c == '(') return open_group();
    if (c == ')') return close_group();
    if (c == '[') {
      ++at_;
      return atom(set(), false);
    }
    if (c == '.') {
      ++at_;
      return atom(CodeSet('\n', '\n').complement(), false);
    }
    if (c == '{') return brace();
    if (std::string_view("|^$*+?").find(c) != std::string_view::npos) {
      verbatim(pattern_.substr(at_++, 1));
      return;
    }
    if (c == '\\')
      if (const std::optional<CodeSet> s = class_escape()) return atom(*s, false);
    const std::uint32_t code = character();
    atom(CodeSet(code, code), true);
  }

  void verbatim(std::string_view text) {
    pieces_.push_back({.text = std::string(text)});
    last_literal_ = 0;
  }

  void atom(CodeSet s, bool literal) {
    if (literal && ignores_case()) s = literal_in_any_case(s);
    if (!literal) last_literal_ = 0;
    if (s.empty()) refuse("a set that holds no character");
    const auto found = std::find(sets_.begin(), sets_.end(), s);
    pieces_.push_back({.text = {}, .set = found - sets_.begin()});
    if (found == sets_.end()) sets_.push_back(std::move(s));
  }

  // There, two letters may also match one character that stands for both: ss and U+00DF.
  CodeSet literal_in_any_case(const CodeSet& s) {
    const std::uint32_t code = s.ranges()[0].first;
    if (code >= 0x80) refuse("a character beyond ASCII under (?i)");
    const char c = static_cast<char>(code >= 'A' && code <= 'Z' ? code + 32 : code);
    const std::string pair = {last_literal_, c};
    for (const std::string_view one : {"ss", "st", "ff", "fi", "fl"})
      if (pair == one) refuse(fmt::format("\"{}\" under (?i)", pair));
    last_literal_ = c;
    return s.ascii_case_closure();
  }

  void open_group() {
    bool ignore = ignores_case();
    if (take("(?i:")) {
      ignore = true;
      verbatim("(?:");
    } else if (take("(?-i:")) {
      ignore = false;
      verbatim("(?:");
    } else if (rest().starts_with("(?") || rest().starts_with("(*")) {
      bool known = false;
      for (const std::string_view group : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
        if (known || !take(group)) continue;
        verbatim(group);
        known = true;
      }
      if (!known) refuse(rest().substr(0, 3));
    } else {
      ++at_;
      verbatim("(?:");
    }
    ignore_case_.push_back(ignore);
  }

  void close_group() {
    if (ignore_case_.size() == 1) invalid("a ) without (");
    ignore_case_.pop_back();
    ++at_;
    verbatim(")");
  }

  // {2}, {2,} and {2,3} repeat; another { is a character.
  void brace() {
    std::size_t end = at_ + 1, commas = 0;
    while (end < pattern_.size() && (is_digit(pattern_[end]) || pattern_[end] == ','))
      commas += pattern_[end++] == ',' ? 1 : 0;
    const bool repeats =
        end < pattern_.size() && pattern_[end] == '}' && end > at_ + 1 && commas <= 1;
    if (!repeats) {
      ++at_;
      return atom(CodeSet('{', '{'), true);
    }
    const std::string_view text = pattern_.substr(at_, end + 1 - at_);
    const char next = end + 1 < pattern_.size() ? pattern_[end + 1] : '\0';
    if (text[1] == ',' || next == '+' || (next == '?' && commas == 0))
      refuse(fmt::format("{}{}", text, next == '\0' ? "" : std::string(1, next)));
    at_ = end + 1;
    verbatim(text);
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_alphanumeric(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }

  // At a backslash: the set that it names, or nothing when it is a character's.
  std::optional<CodeSet> class_escape() {
    const char e = at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0';
    std::optional<CodeSet> s;
    switch (e) {
      case 's':
      case 'S': s = unicode::spaces(); break;
      case 'd':
      case 'D': s = unicode::property("Nd"); break;
      case 'w':
      case 'W': s = unicode::word_characters(); break;
      case 'p':
      case 'P': return property();
      default: return {};
    }
    at_ += 2;
    return e >= 'a' ? s : s->complement();
  }

  CodeSet property() {
    bool negative = pattern_[at_ + 1] == 'P';
    at_ += 2;
    if (!take("{")) refuse("\\p without { }");
    if (take("^")) negative = !negative;
    const std::size_t end = pattern_.find('}', at_);
    if (end == std::string_view::npos) invalid("\\p{ without }");
    const std::string_view name = pattern_.substr(at_, end - at_);
    at_ = end + 1;
    const std::optional<CodeSet> s = unicode::property(name);
    if (!s) refuse(fmt::format("\\p{{{}}}", name));
    return negative ? s->complement() : *s;
  }

  // One character, written as it is or escaped.
  std::uint32_t character() {
    if (pattern_[at_] != '\\') {
      const unicode::Decoded d = unicode::decode_valid(pattern_.data() + at_);
      at_ += d.bytes;
      return d.code;
    }
    if (at_ + 1 == pattern_.size()) invalid("it ends with a backslash");
    constexpr std::string_view kNames = "nrtfvae", kCodes = "\n\r\t\f\v\a\x1b";
    const char e = pattern_[at_ + 1];
    if (const std::size_t i = kNames.find(e); i != std::string_view::npos) {
      at_ += 2;
      return static_cast<unsigned char>(kCodes[i]);
    }
    if (e == 'x' || e == 'u') return hexadecimal(e);
    if (is_alphanumeric(e)) refuse(fmt::format("\\{}", e));
    ++at_;
    const unicode::Decoded d = unicode::decode_valid(pattern_.data() + at_);
    at_ += d.bytes;
    return d.code;
  }

  // \x41, \x{1F600}, \u0041
  std::uint32_t hexadecimal(char e) {
    at_ += 2;
    const bool braces = e == 'x' && take("{");
    const std::size_t most = braces ? 8 : e == 'x' ? 2 : 4;
    std::uint32_t code = 0;
    std::size_t digits = 0;
    for (; digits < most && at_ < pattern_.size(); ++digits, ++at_) {
      const std::size_t value =
          std::string_view("0123456789abcdef0123456789ABCDEF").find(pattern_[at_]);
      if (value == std::string_view::npos) break;
      code = code * 16 + static_cast<std::uint32_t>(value % 16);
    }
    // Two digits beyond ASCII are a byte there, not a character.
    if (digits == 0 || (braces ? !take("}") : digits != most) || code > CodeSet::kLast ||
        (code >= 0xD800 && code < 0xE000) || (e == 'x' && !braces && code >= 0x80))
      refuse(fmt::format("\\{} with that number", e));
    return code;
  }

  // After a [, to the ] that ends it.
  CodeSet set() {
    const bool negative = take("^");
    std::optional<CodeSet> all;  // of the operands of && so far
    CodeSet own;
    for (bool first = true; first || !take("]"); first = false) {
      if (at_ >= pattern_.size()) invalid("a [ without ]");
      if (take("&&")) {
        all = all ? all->intersection(own) : own;
        own = {};
      } else {
        own.add(member());
      }
    }
    if (all) own = all->intersection(own);
    return negative ? own.complement() : own;
  }

  CodeSet member() {
    if (rest().starts_with("[:")) refuse("[: inside [ ]");
    if (take("[")) return set();
    if (pattern_[at_] == '\\')
      if (const std::optional<CodeSet> s = class_escape()) {
        if (ignores_case()) refuse("a class inside [ ] under (?i)");
        if (rest().starts_with("-") && !rest().starts_with("-]")) refuse("a range from a class");
        return *s;
      }
    const std::uint32_t first = character();
    std::uint32_t last = first;
    if (rest().starts_with("-") && !rest().starts_with("-]")) {
      ++at_;
      if (at_ < pattern_.size() && (pattern_[at_] == '[' || class_escape()))
        refuse("a range to a class");
      if (at_ >= pattern_.size()) invalid("a [ without ]");
      last = character();
      if (last < first) invalid("a range that ends before it begins");
      if (rest().starts_with("-") && !rest().starts_with("-]")) refuse("a range from a range");
    }
    const CodeSet s(first, last);
    if (!ignores_case()) return s;
    if (last >= 0x80) refuse("a character beyond ASCII under (?i)");
    return s.ascii_case_closure();
  }

  std::string_view pattern_, where_;
  std::size_t at_ = 0;
  std::vector<Piece> pieces_;
  std::vector<CodeSet> sets_;
  std::vector<bool> ignore_case_{false};  // of the groups around
  char last_literal_ = 0;                 // under (?i), in lower case
};

// Numbers the kinds: code points that the same sets hold. Rewrites `kinds`; returns of each set the
// kinds that it holds.
std::vector<std::vector<std::uint8_t>> number_kinds(const std::vector<CodeSet>& sets,
                                                    std::vector<std::uint8_t>& kinds,
                                                    std::string_view where) {
  std::vector<std::uint32_t> borders = {0, '\n', '\n' + 1};
  for (const CodeSet& s : sets)
    for (const unicode::CodeRange& r : s.ranges())
      borders.insert(borders.end(), {r.first, r.last + 1});
  borders.push_back(CodeSet::kLast + 1);
  std::sort(borders.begin(), borders.end());
  borders.erase(std::unique(borders.begin(), borders.end()), borders.end());

  std::vector<std::vector<std::uint8_t>> members(sets.size());
  std::map<std::vector<bool>, std::uint8_t> numbers;
  kinds.assign(CodeSet::kLast + 1, 0);
  int next = 0;
  for (std::size_t b = 0; b + 1 < borders.size(); ++b) {
    std::vector<bool> held{borders[b] == '\n'};
    for (const CodeSet& s : sets) held.push_back(s.contains(borders[b]));
    const auto [entry, is_new] = numbers.try_emplace(held, std::uint8_t{'\n'});
    if (is_new && borders[b] != '\n') {
      if (next == '\n') ++next;
      if (next > 255)
        fail(ExitCode::bad_data, "{}: the pattern tells more than 255 kinds of characters apart",
             where);
      entry->second = static_cast<std::uint8_t>(next++);
    }
    std::fill(kinds.begin() + borders[b], kinds.begin() + borders[b + 1], entry->second);
    for (std::size_t s = 0; is_new && s < sets.size(); ++s)
      if (held[s + 1]) members[s].push_back(entry->second);
  }
  return members;
}

}  // namespace

BytePattern translate_pattern(std::string_view pattern, std::string_view where) {
  const Parser parser(pattern, where);
  BytePattern out;
  const std::vector<std::vector<std::uint8_t>> members =
      number_kinds(parser.sets(), out.kinds, where);
  for (const Parser::Piece& piece : parser.pieces()) {
    out.text += piece.text;
    if (piece.set < 0) continue;
    out.text += '[';
    for (const std::uint8_t kind : members[static_cast<std::size_t>(piece.set)])
      out.text += fmt::format("\\x{:02x}", kind);
    out.text += ']';
  }
  return out;
}

}  // namespace grist
