#include "unicode.h"

#include <cstring>

#include "unicode_ranges.h"

namespace grist::unicode {

namespace {

constexpr std::size_t kCodes = 0x110000;

template <std::size_t N>
void mark(std::vector<std::uint8_t>& flat, const CodeRange (&ranges)[N], std::uint8_t bits) {
  for (const CodeRange& r : ranges)
    for (std::uint32_t c = r.first; c <= r.last; ++c) flat[c] |= bits;
}

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

Classes::Classes() {
  std::vector<std::uint8_t> flat(kCodes, 0);
  mark(flat, kLetters, kLetter | kWord);
  mark(flat, kNumbers, kNumber);
  mark(flat, kSpaces, kSpace);
  mark(flat, kWordExtra, kWord);
  for (std::size_t c = 0; c < ascii_.size(); ++c)
    ascii_[c] = flat[c] & static_cast<std::uint8_t>(kLetter | kNumber | kSpace);
  index_.resize(kCodes / 256);
  for (std::size_t b = 0; b < index_.size(); ++b) {
    const std::uint8_t* block = flat.data() + b * 256;
    std::size_t i = 0;  // few distinct blocks; the last one made is the likeliest match
    for (i = blocks_.size() / 256; i > 0; --i)
      if (std::memcmp(blocks_.data() + (i - 1) * 256, block, 256) == 0) break;
    if (i == 0) {
      blocks_.insert(blocks_.end(), block, block + 256);
      i = blocks_.size() / 256;
    }
    index_[b] = static_cast<std::uint16_t>(i - 1);
  }
}

Decoded decode_valid_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while ((static_cast<unsigned char>(text[begin]) & 0xC0U) == 0x80U) --begin;
  return decode_valid(text.data() + begin);
}

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

ByteAlphabet::ByteAlphabet() {
  bytes_.fill(-1);
  char32_t next = 0x100;
  for (std::size_t b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    characters_[b] = itself ? static_cast<char32_t>(b) : next++;
    bytes_[characters_[b]] = static_cast<std::int16_t>(b);
  }
}

bool ByteAlphabet::to_bytes(std::string_view spelling, std::string& bytes) const {
  bytes.clear();
  for (std::size_t i = 0; i < spelling.size();) {
    const Decoded d = decode_valid(spelling.data() + i);
    if (d.code >= bytes_.size() || bytes_[d.code] < 0) return false;
    bytes += static_cast<char>(static_cast<unsigned char>(bytes_[d.code]));
    i += d.bytes;
  }
  return true;
}

std::string ByteAlphabet::to_spelling(std::string_view bytes) const {
  std::string out;
  for (const char c : bytes) append_utf8(out, characters_[static_cast<unsigned char>(c)]);
  return out;
}

}  // namespace grist::unicode
