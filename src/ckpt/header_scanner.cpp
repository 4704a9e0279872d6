#include "header_scanner.h"

#include <limits>

#include "grist/core/check.h"
#include "grist/core/utf8.h"

namespace grist::ckpt {

void HeaderScanner::wrong(std::string_view problem) const {
  fail(ExitCode::bad_data, "{}: {} at byte {} of the header", where_, problem, at_);
}

void HeaderScanner::skip_space() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
    ++at_;
}

bool HeaderScanner::take(char c) {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

void HeaderScanner::expect(char c) {
  if (!take(c)) wrong(std::string("'") + c + "' was expected");
}

bool HeaderScanner::at_end() {
  skip_space();
  return at_ == text_.size();
}

std::uint32_t HeaderScanner::hex4() {
  if (text_.size() - at_ < 4) wrong("unfinished \\u escape");
  std::uint32_t code = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = text_[at_++];
    std::uint32_t digit = 0;
    if (c >= '0' && c <= '9')
      digit = static_cast<std::uint32_t>(c - '0');
    else if (c >= 'a' && c <= 'f')
      digit = static_cast<std::uint32_t>(c - 'a') + 10;
    else if (c >= 'A' && c <= 'F')
      digit = static_cast<std::uint32_t>(c - 'A') + 10;
    else
      wrong("bad \\u escape");
    code = code * 16 + digit;
  }
  return code;
}

void HeaderScanner::escape(std::string& out) {
  if (at_ >= text_.size()) wrong("unfinished string");
  const char c = text_[at_++];
  switch (c) {
    case '"':
    case '\\':
    case '/': out += c; return;
    case 'b': out += '\b'; return;
    case 'f': out += '\f'; return;
    case 'n': out += '\n'; return;
    case 'r': out += '\r'; return;
    case 't': out += '\t'; return;
    case 'u': break;
    default: wrong("unknown escape");
  }
  std::uint32_t code = hex4();
  if (code >= 0xDC00 && code < 0xE000) wrong("lone surrogate");
  if (code >= 0xD800 && code < 0xDC00) {
    if (text_.substr(at_, 2) != "\\u") wrong("lone surrogate");
    at_ += 2;
    const std::uint32_t low = hex4();
    if (low < 0xDC00 || low >= 0xE000) wrong("lone surrogate");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  unicode::append_utf8(out, code);
}

std::string HeaderScanner::string() {
  if (!take('"')) wrong("a string was expected");
  std::string out;
  for (;;) {
    if (at_ >= text_.size()) wrong("unfinished string");
    const char c = text_[at_++];
    if (c == '"') return out;
    if (c == '\\')
      escape(out);
    else if (static_cast<unsigned char>(c) < 0x20)
      wrong("control character in a string");
    else
      out += c;
  }
}

std::uint64_t HeaderScanner::integer() {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  skip_space();
  const std::size_t begin = at_;
  std::uint64_t value = 0;
  while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
    const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
    if (value > (kMax - digit) / 10) wrong("number too large");
    value = value * 10 + digit;
    ++at_;
  }
  if (at_ == begin) wrong("a whole number was expected");
  if (text_[begin] == '0' && at_ - begin > 1) wrong("number with a leading zero");
  return value;
}

void HeaderScanner::check_utf8() const {
  const std::size_t good = unicode::valid_prefix(text_, 0);
  if (good != text_.size())
    fail(ExitCode::bad_data, "{}: the header is not UTF-8 at its byte {}", where_, good);
}

}  // namespace grist::ckpt
