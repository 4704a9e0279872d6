#pragma once
// Cutting text into the pieces that BPE works inside of. A Cutter stands for one pattern of the
// pre-tokenizer; the common ones have hand-written scanners, the rest run on PCRE2.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "unicode.h"

namespace grist {

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kDigitPattern = R"(\p{N})";
inline constexpr std::string_view kDigitsPattern = R"(\p{N}+)";

// What one thread needs to run a compiled pattern: match data and a stack for JIT code.
class MatchState {
 public:
  MatchState();
  ~MatchState();
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

 private:
  friend class RegexCutter;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Immutable: any number of threads may use one, each with its own MatchState.
class Cutter {
 public:
  virtual ~Cutter() = default;
  // Cuts text[from, size) from the left and writes where the pieces end, as many as fit. The last
  // end written is where the next call goes on; every byte belongs to a piece. `text` is valid
  // UTF-8 and shorter than 2 GiB. A text is begun at 0, and stays as it is until it is cut. Needs
  // room for two ends.
  virtual std::size_t cut(std::string_view text, std::size_t from, std::span<std::uint32_t> ends,
                          MatchState& state) const = 0;
};

// The patterns above by hand; null for any other. `classes` must outlive the cutter.
std::unique_ptr<const Cutter> make_scanner(std::string_view pattern,
                                           const unicode::Classes& classes);
// Any pattern, on PCRE2 with JIT: matches and what lies between them are pieces. What a character
// is
// (\p{Lu}, \s, its other case) is said by grist's own tables, which are those of PyPI tokenizers
// (pattern.h). Throws Error{bad_data} "<where>: ..." for a pattern that is none, or that would not
// be read as that library reads it.
std::unique_ptr<const Cutter> make_regex_cutter(std::string_view pattern, std::string_view where);
// `text` with every character that means something in a pattern escaped.
std::string escape_pattern(std::string_view text);

}  // namespace grist
