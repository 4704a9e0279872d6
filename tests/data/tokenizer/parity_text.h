#pragma once
// The text of the tokenizer goldens, generated as scripts/make_tokenizer_golden.py does, and small
// functions that several tokenizer tests need.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/file.h"

namespace grist::test {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(GRIST_TESTS_DIR) / "golden" / "tokenizer";
}

// GPT-2's tokenizer.json in $GRIST_TEST_DATA/gpt2; nullopt: not set, or not there.
inline std::optional<std::filesystem::path> gpt2_file() {
  const char* env = std::getenv("GRIST_TEST_DATA");
  if (env == nullptr) return std::nullopt;
  const std::filesystem::path file = std::filesystem::path(env) / "gpt2" / "tokenizer.json";
  if (!std::filesystem::exists(file)) return std::nullopt;
  return file;
}

inline std::uint64_t fnv(std::string_view bytes) {
  std::uint64_t h = 0xCBF29CE484222325ULL;
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return h;
}
inline std::uint64_t fnv(std::span<const std::int32_t> ids) {
  std::string bytes;
  for (const std::int32_t id : ids)
    for (unsigned shift = 0; shift < 32; shift += 8)
      bytes += static_cast<char>((static_cast<std::uint32_t>(id) >> shift) & 0xFFU);
  return fnv(bytes);
}

class Lcg {
 public:
  explicit Lcg(std::uint64_t seed) : state_(seed) { below(1); }
  std::uint32_t below(std::uint64_t n) {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<std::uint32_t>((state_ >> 33U) % n);
  }

 private:
  std::uint64_t state_;
};

inline std::string utf8(std::uint32_t c) {
  const auto tail = [c](unsigned shift) {
    return static_cast<char>(0x80U | ((c >> shift) & 0x3FU));
  };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0U | (c >> 6U)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0U | (c >> 12U)), tail(6), tail(0)};
  return {static_cast<char>(0xF0U | (c >> 18U)), tail(12), tail(6), tail(0)};
}

class ParityText {
 public:
  ParityText() {
    const std::string all = read_text(golden_folder() / "snippets.txt");
    for (std::size_t begin = 0;;) {
      const std::size_t end = all.find("%%\n", begin);
      snippets_.push_back(all.substr(begin, end - begin));
      if (end == std::string::npos) break;
      begin = end + 3;
    }
  }

  // Four KB of English, code, other scripts, emoji and broken UTF-8.
  std::string chunk(std::uint64_t number) const {
    Lcg r(number);
    std::string out;
    while (out.size() < 4096) append_part(r, out);
    return out;
  }

 private:
  void append_part(Lcg& r, std::string& out) const {
    static constexpr std::string_view kSpaces[] = {" ",      "\n",     "\t",       "\r\n",
                                                   "\u00a0", "\u3000", "\xC2\x85", "\u180e"};
    static constexpr std::string_view kContractions[] = {
        "'s", "'S", "'ll", "'LL", "'\u017f", "'re", "'Ve", "'d", "'m", "'T", "''", "'"};
    static constexpr std::string_view kSpecials[] = {"<|endoftext|>", "<|endoftext",  " <x> ",
                                                     "<x>y\n ",       "zq-x",         "xzq-x",
                                                     " ~'~ ",         "\u00e9t\u00e9"};
    static constexpr std::string_view kRepeated = "a= -*\n.0";
    const std::uint32_t kind = r.below(16);
    if (kind == 8) {
      const std::string_view space = kSpaces[r.below(std::size(kSpaces))];
      for (std::uint32_t n = 1 + r.below(5); n > 0; --n) out += space;
    } else if (kind == 9) {
      for (std::uint32_t n = 1 + r.below(6); n > 0; --n) {
        const std::uint32_t c = r.below(2) == 0 ? r.below(0x3000) : r.below(0x110000);
        out += utf8(c >= 0xD800 && c < 0xE000 ? 0x20 : c);
      }
    } else if (kind == 10) {
      for (std::uint32_t n = 1 + r.below(8); n > 0; --n) out += static_cast<char>(r.below(256));
    } else if (kind == 11) {
      out += kContractions[r.below(std::size(kContractions))];
    } else if (kind == 12) {
      out += kSpecials[r.below(std::size(kSpecials))];
    } else if (kind == 13) {
      out += std::to_string(r.below(1000000000));
    } else if (kind == 14) {
      const char c = kRepeated[r.below(kRepeated.size())];
      out.append(1 + r.below(200), c);
    } else {
      const std::string& s = snippets_[r.below(snippets_.size())];
      const std::uint32_t begin = r.below(s.size());
      out.append(s, begin, 1 + r.below(160));
    }
  }

  std::vector<std::string> snippets_;
};

}  // namespace grist::test
