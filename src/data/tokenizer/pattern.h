#pragma once
// A pattern in Oniguruma's Ruby syntax, as tokenizer.json has them, made into one over bytes. All
// characters that no atom of the pattern tells apart are one kind, a kind is one byte, and an atom
// becomes a set of bytes. So the engine that runs it needs to know nothing of Unicode or case, and
// what \p{Lu} is does not depend on the engine's version.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace grist {

struct BytePattern {
  std::string text;                 // for an engine that matches bytes
  std::vector<std::uint8_t> kinds;  // of every code point; '\n' is itself
};

// Throws Error{bad_data} "<where>: ..." for what is not understood the same way here and there.
BytePattern translate_pattern(std::string_view pattern, std::string_view where);

}  // namespace grist
