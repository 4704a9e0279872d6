#pragma once
// Canonical composition (NFC), which some tokenizers ask for before anything else (Qwen's).
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace grist::unicode {

// Immutable tables; the text must be valid UTF-8.
class Nfc {
 public:
  Nfc();
  // True if NFC certainly leaves the text alone; most text is told by this look at its bytes.
  bool surely_normal(std::string_view text) const;
  void normalize(std::string_view text, std::string& out) const;

 private:
  struct Mark {
    char32_t code = 0;
    std::uint8_t combining_class = 0;
  };
  void append_decomposed(char32_t code, std::vector<Mark>& out) const;
  char32_t compose(char32_t first, char32_t second) const;  // 0: these two do not compose
  std::uint8_t class_of(char32_t code) const;

  std::unordered_map<char32_t, std::u32string> decompositions_;
  std::unordered_map<std::uint64_t, char32_t> compositions_;
  std::unordered_map<char32_t, std::uint8_t> classes_;
  std::vector<bool> may_change_;  // by code: NFC may change a text that has it
};

}  // namespace grist::unicode
