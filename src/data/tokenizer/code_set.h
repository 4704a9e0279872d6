#pragma once
// Sets of code points, as ranges; \p{...} and the like come from grist's own tables, which are
// those of PyPI tokenizers.
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "unicode_ranges.h"

namespace grist::unicode {

class CodeSet {
 public:
  static constexpr std::uint32_t kLast = 0x10FFFF;
  CodeSet() = default;
  CodeSet(std::uint32_t first, std::uint32_t last) : ranges_{{first, last}} {}

  void add(const CodeSet& other);
  CodeSet complement() const;
  CodeSet intersection(const CodeSet& other) const;
  // The letters of A to Z in either case, where one is in the set; likewise U+017F with s and
  // U+212A with k, which differ from them by case alone.
  CodeSet ascii_case_closure() const;

  bool empty() const { return ranges_.empty(); }
  bool contains(std::uint32_t code) const;
  const std::vector<CodeRange>& ranges() const { return ranges_; }  // ascending, apart
  bool operator==(const CodeSet& other) const;

 private:
  std::vector<CodeRange> ranges_;
};

// \p{NAME}: a general category (Lu, L), a common long name (Letter), a script (Han). Case, spaces,
// '_' and '-' do not matter. Empty: not known.
std::optional<CodeSet> property(std::string_view name);
CodeSet spaces();           // \s
CodeSet word_characters();  // \w, also \p{Word}

}  // namespace grist::unicode
