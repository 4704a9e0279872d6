#include "header_scanner.h"

#include <limits>

#include "grist/core/check.h"

namespace grist::ckpt {

namespace {

void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&out](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 63));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 63));
    put(0x80 | (code & 63));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 63));
    put(0x80 | ((code >> 6) & 63));
    put(0x80 | (code & 63));
  }
}

// Length of the sequence that starts at s[i], or 0: not UTF-8 (RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view s, std::size_t i) {
  const auto byte = [&](std::size_t k) {
    return k < s.size() ? static_cast<unsigned>(static_cast<unsigned char>(s[k])) : 0U;
  };
  const auto follows = [&](std::size_t k) { return (byte(k) & 0xC0) == 0x80; };
  const unsigned first = byte(i);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first < 0xE0) return follows(i + 1) ? 2 : 0;
  if (first >= 0xE0 && first < 0xF0) {
    if (!follows(i + 1) || !follows(i + 2)) return 0;
    const unsigned code = ((first & 15) << 12) | ((byte(i + 1) & 63) << 6);
    return code >= 0x800 && (code < 0xD800 || code >= 0xE000) ? 3 : 0;
  }
  if (first >= 0xF0 && first < 0xF5) {
    if (!follows(i + 1) || !follows(i + 2) || !follows(i + 3)) return 0;
    const unsigned code = ((first & 7) << 18) | ((byte(i + 1) & 63) << 12);
    return code >= 0x10000 && code < 0x110000 ? 4 : 0;
  }
  return 0;
}

}  // namespace

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
  append_utf8(out, code);
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
  for (std::size_t i = 0; i < text_.size();) {
    const std::size_t n = utf8_length(text_, i);
    if (n == 0) fail(ExitCode::bad_data, "{}: the header is not UTF-8 at its byte {}", where_, i);
    i += n;
  }
}

}  // namespace grist::ckpt
