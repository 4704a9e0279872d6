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

}  // namespace grist::unicode
