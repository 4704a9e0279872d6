#pragma once
// UTF-8 as Unicode defines it (no overlong forms, no surrogates, nothing above U+10FFFF): where it
// breaks, how it is repaired, how a code point is written.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace grist::unicode {

// Bytes from `from` up to the first malformed sequence, or text.size().
std::size_t valid_prefix(std::string_view text, std::size_t from);
inline bool is_valid_utf8(std::string_view text) {
  return valid_prefix(text, 0) == text.size();
}
// Copies `text` into `out` with U+FFFD for each maximal part of a malformed sequence, exactly as
// Python's bytes.decode("utf-8", errors="replace"); returns how many were put in.
std::uint64_t repair_utf8(std::string_view text, std::string& out);

void append_utf8(std::string& out, char32_t code);

}  // namespace grist::unicode
