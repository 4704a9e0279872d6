#include "python_literal.h"

#include <charconv>
#include <string>

#include "grist/core/check.h"
#include "grist/core/utf8.h"

namespace grist::eval {

namespace {

constexpr int kMaxDepth = 64;

class Reader {
 public:
  Reader(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  Json whole() {
    Json value = this->value(0);
    skip_space();
    if (at_ != text_.size()) problem("more text behind the value");
    return value;
  }

 private:
  [[noreturn]] void problem(const char* what) const {
    fail(ExitCode::bad_data, "{}: not a Python literal: {} at byte {}", where_, what, at_);
  }
  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n\f").find(text_[at_]) != text_.npos)
      ++at_;
  }
  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take_word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  Json value(int depth) {
    if (depth > kMaxDepth) problem("nested too deeply");
    skip_space();
    if (at_ >= text_.size()) problem("it ends too early");
    switch (text_[at_]) {
      case '[': return sequence(']', depth);
      case '(': return sequence(')', depth);
      case '{': return dict(depth);
      case '\'':
      case '"': return strings();
      default: break;
    }
    if (take_word("None")) return {};
    if (take_word("True")) return true;
    if (take_word("False")) return false;
    return number();
  }

  Json sequence(char close, int depth) {
    ++at_;
    Json out = Json::array();
    while (!take(close)) {
      out.push_back(value(depth + 1));
      if (take(',')) continue;
      if (!take(close)) problem("a comma or the end of the list is missing");
      break;
    }
    return out;
  }

  Json dict(int depth) {
    ++at_;
    Json out = Json::object();
    while (!take('}')) {
      skip_space();
      if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"'))
        problem("a key that is not a string");
      const std::string key = strings();
      if (!take(':')) problem("a colon is missing");
      out.set(key, value(depth + 1));
      if (take(',')) continue;
      if (!take('}')) problem("a comma or the end of the dict is missing");
      break;
    }
    return out;
  }

  Json number() {
    std::int64_t number = 0;
    const char* begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), number);
    if (error != std::errc{}) problem("not a value");
    at_ += static_cast<std::size_t>(end - begin);
    return number;
  }

  std::string strings() {  // neighbours are one string
    std::string out;
    do {
      one_string(out);
      skip_space();
    } while (at_ < text_.size() && (text_[at_] == '\'' || text_[at_] == '"'));
    return out;
  }

  void one_string(std::string& out) {
    const char quote = text_[at_++];
    while (true) {
      if (at_ >= text_.size() || text_[at_] == '\n') problem("a string without an end");
      const char c = text_[at_++];
      if (c == quote) return;
      if (c == '\\') {
        escape(out);
      } else {
        out += c;
      }
    }
  }

  void escape(std::string& out) {
    if (at_ >= text_.size()) problem("a string without an end");
    const char c = text_[at_++];
    constexpr std::string_view kPlain = "\\'\"abfnrtv", kMeant = "\\'\"\a\b\f\n\r\t\v";
    if (const std::size_t i = kPlain.find(c); i != kPlain.npos) {
      out += kMeant[i];
    } else if (c == '\n') {  // the string goes on on the next line
    } else if (c == 'x') {
      unicode::append_utf8(out, digits(2, 16));
    } else if (c == 'u') {
      unicode::append_utf8(out, digits(4, 16));
    } else if (c == 'U') {
      unicode::append_utf8(out, digits(8, 16));
    } else if (c >= '0' && c <= '7') {
      --at_;
      std::size_t count = 1;
      while (count < 3 && at_ + count < text_.size() && text_[at_ + count] >= '0' &&
             text_[at_ + count] <= '7')
        ++count;
      unicode::append_utf8(out, digits(count, 8));
    } else {
      out += '\\';
      out += c;
    }
  }

  char32_t digits(std::size_t count, int base) {
    std::uint32_t code = 0;
    const std::string_view part = text_.substr(at_, count);
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), code, base);
    if (error != std::errc{} || end != part.data() + count) problem("a broken escape");
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) problem("not a character");
    at_ += count;
    return code;
  }

  std::string_view text_, where_;
  std::size_t at_ = 0;
};

}  // namespace

Json parse_python_literal(std::string_view text, std::string_view where) {
  return Reader(text, where).whole();
}

}  // namespace grist::eval
