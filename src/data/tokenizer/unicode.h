#pragma once
// Characters of valid UTF-8 and the few classes of them that pre-tokenizers need. Text that reaches
// the scanners is valid: repair_utf8 (core/utf8.h) is the one door.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/utf8.h"

namespace grist::unicode {

// Bits of a character's class. Letter, number and space exclude each other.
inline constexpr std::uint8_t kLetter = 1;  // \p{L}
inline constexpr std::uint8_t kNumber = 2;  // \p{N}
inline constexpr std::uint8_t kSpace = 4;   // \s
inline constexpr std::uint8_t kWord = 8;    // \w

// Class of every code point, as a table of shared blocks (about 70 KB).
class Classes {
 public:
  Classes();
  std::uint8_t operator[](char32_t c) const {
    return blocks_[static_cast<std::size_t>(index_[c >> 8U]) * 256 + (c & 0xFFU)];
  }
  // Letter, number and space bits of a single byte below 0x80.
  std::uint8_t ascii(unsigned char c) const { return ascii_[c]; }

 private:
  std::array<std::uint8_t, 128> ascii_{};
  std::vector<std::uint16_t> index_;
  std::vector<std::uint8_t> blocks_;
};

struct Decoded {
  char32_t code = 0;
  std::uint32_t bytes = 0;
};
// The character at p; the text must be valid UTF-8.
inline Decoded decode_valid(const char* p) {
  const auto b = [p](int i) { return static_cast<char32_t>(static_cast<unsigned char>(p[i])); };
  if (b(0) < 0x80) return {b(0), 1};
  if (b(0) < 0xE0) return {((b(0) & 0x1FU) << 6U) | (b(1) & 0x3FU), 2};
  if (b(0) < 0xF0) return {((b(0) & 0x0FU) << 12U) | ((b(1) & 0x3FU) << 6U) | (b(2) & 0x3FU), 3};
  return {
      ((b(0) & 0x07U) << 18U) | ((b(1) & 0x3FU) << 12U) | ((b(2) & 0x3FU) << 6U) | (b(3) & 0x3FU),
      4};
}
// The character that ends just before `end`.
Decoded decode_valid_before(std::string_view text, std::size_t end);

// GPT-2's bijection between bytes and printable characters, in which tokenizer.json spells tokens.
class ByteAlphabet {
 public:
  ByteAlphabet();
  char32_t character(std::uint8_t byte) const { return characters_[byte]; }
  // Turns the spelling into bytes; false if a character is not in the alphabet. `spelling` must be
  // valid UTF-8.
  bool to_bytes(std::string_view spelling, std::string& bytes) const;

 private:
  std::array<char32_t, 256> characters_{};
  std::array<std::int16_t, 324> bytes_{};  // by character; -1: not in the alphabet
};

}  // namespace grist::unicode
