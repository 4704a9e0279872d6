#include "grist/core/json_string.h"

#include <bit>
#include <cstdint>
#include <cstring>

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

// `at` is behind a backslash.
const char* skip_escape(std::string_view text, std::size_t& at) {
  if (at == text.size()) return "unfinished string";
  const char c = text[at];
  if (c == 'u') {
    if (hex4(text.substr(at + 1)) < 0) return "bad \\u escape";
    at += 5;
    return nullptr;
  }
  if (c == '\0' || std::strchr("\"\\/bfnrt", c) == nullptr) return "unknown escape";
  ++at;
  return nullptr;
}

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

const char* skip_json_string(std::string_view text, std::size_t& at) {
  for (++at;;) {
    std::uint64_t bytes = 0;
    for (; at + 8 <= text.size(); at += 8) {
      std::memcpy(&bytes, text.data() + at, 8);
      const std::size_t plain = plain_bytes(bytes);
      if (plain == 8) continue;
      at += plain;
      break;
    }
    if (at == text.size()) return "unfinished string";
    const char c = text[at];
    if (static_cast<unsigned char>(c) < 0x20) return "control character in a string";
    ++at;
    if (c == '"') return nullptr;
    if (c != '\\') continue;
    if (const char* wrong = skip_escape(text, at)) return wrong;
  }
}

bool json_string_value(std::string_view raw, std::string& buffer, std::string_view& text) {
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
