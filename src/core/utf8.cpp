#include "grist/core/utf8.h"

#include <cstring>

namespace grist::unicode {

namespace {

// Length of the valid sequence at p, or 0; `bad` is then the length of its maximal valid part,
// at least 1 (Unicode's "substitution of maximal subparts").
std::size_t sequence(const unsigned char* p, std::size_t left, std::size_t& bad) {
  bad = 1;
  const unsigned char a = p[0];
  if (a < 0x80) return 1;
  if (a < 0xC2 || a > 0xF4) return 0;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;  // bounds of the second byte: no overlong forms, no surrogates
  if (a == 0xE0) low = 0xA0;
  if (a == 0xED) high = 0x9F;
  if (a == 0xF0) low = 0x90;
  if (a == 0xF4) high = 0x8F;
  const std::size_t want = a < 0xE0 ? 2 : a < 0xF0 ? 3 : 4;
  for (std::size_t i = 1; i < want; ++i) {
    if (i >= left || p[i] < low || p[i] > high) {
      bad = i;
      return 0;
    }
    low = 0x80;
    high = 0xBF;
  }
  return want;
}

}  // namespace

std::size_t valid_prefix(std::string_view text, std::size_t from) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const std::size_t n = text.size();
  std::size_t i = from;
  while (i < n) {
    if (p[i] < 0x80) {
      for (std::uint64_t word = 0; i + 8 <= n; i += 8) {
        std::memcpy(&word, p + i, 8);
        if ((word & 0x8080808080808080ULL) != 0) break;
      }
      while (i < n && p[i] < 0x80) ++i;
      continue;
    }
    std::size_t bad = 0;
    const std::size_t length = sequence(p + i, n - i, bad);
    if (length == 0) return i;
    i += length;
  }
  return n;
}

std::uint64_t repair_utf8(std::string_view text, std::string& out) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  std::uint64_t replaced = 0;
  out.clear();
  out.reserve(text.size() + 16);
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t good = valid_prefix(text, i);
    out.append(text, i, good - i);
    i = good;
    if (i == text.size()) break;
    std::size_t bad = 0;
    sequence(p + i, text.size() - i, bad);
    out += "\xEF\xBF\xBD";
    ++replaced;
    i += bad;
  }
  return replaced;
}

void append_utf8(std::string& out, char32_t code) {
  const auto put = [&out](char32_t b) { out += static_cast<char>(static_cast<unsigned char>(b)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0U | (code >> 6U));
    put(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    put(0xE0U | (code >> 12U));
    put(0x80U | ((code >> 6U) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  } else {
    put(0xF0U | (code >> 18U));
    put(0x80U | ((code >> 12U) & 0x3FU));
    put(0x80U | ((code >> 6U) & 0x3FU));
    put(0x80U | (code & 0x3FU));
  }
}

}  // namespace grist::unicode
