#include "python_text.h"

#include <algorithm>
#include <iterator>

#include "grist/core/utf8.h"
#include "unicode_case.h"

namespace grist::eval {

namespace {

bool continues(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

std::u32string decode(std::string_view text) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    char32_t code = lead < 0x80   ? lead
                    : lead < 0xE0 ? lead & 0x1FU
                    : lead < 0xF0 ? lead & 0x0FU
                                  : lead & 0x07U;
    for (; i < text.size() && continues(text[i]); ++i)
      code = code << 6 | (static_cast<unsigned char>(text[i]) & 0x3FU);
    out.push_back(code);
  }
  return out;
}

bool is_space(char32_t c) {  // str.isspace()
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

// Where the last code point of a text that is not empty begins.
std::size_t last_begin(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && continues(text[at])) --at;
  return at;
}

std::string_view lstrip(std::string_view text) {
  while (!text.empty()) {
    std::size_t end = 1;
    while (end < text.size() && continues(text[end])) ++end;
    if (!is_space(decode(text.substr(0, end))[0])) break;
    text.remove_prefix(end);
  }
  return text;
}

template <std::size_t N> bool among(const CodeRange (&ranges)[N], char32_t c) {
  const auto* at =
      std::upper_bound(std::begin(ranges), std::end(ranges), c,
                       [](char32_t code, const CodeRange& r) { return code < r.first; });
  return at != std::begin(ranges) && c <= std::prev(at)->last;
}

template <std::size_t N, std::size_t M>
void append_mapped(std::string& out, char32_t c, const CaseRun (&runs)[N],
                   const CaseString (&strings)[M]) {
  for (const CaseString& s : strings) {
    if (s.code != c) continue;
    for (const char32_t* at = s.text; *at != 0; ++at) unicode::append_utf8(out, *at);
    return;
  }
  const auto* at = std::upper_bound(std::begin(runs), std::end(runs), c,
                                    [](char32_t code, const CaseRun& r) { return code < r.first; });
  if (at != std::begin(runs)) {
    --at;
    if (c <= at->last && (c - at->first) % static_cast<char32_t>(at->step) == 0)
      c = static_cast<char32_t>(static_cast<std::int64_t>(c) + at->delta);
  }
  unicode::append_utf8(out, c);
}

// A capital sigma at the end of a word becomes the final small one.
bool is_final_sigma(const std::u32string& text, std::size_t i) {
  std::size_t before = i;
  while (before > 0 && among(kCaseIgnorable, text[before - 1])) --before;
  if (before == 0 || !among(kCased, text[before - 1])) return false;
  std::size_t after = i + 1;
  while (after < text.size() && among(kCaseIgnorable, text[after])) ++after;
  return after == text.size() || !among(kCased, text[after]);
}

}  // namespace

std::size_t code_points(std::string_view text) {
  return text.size() - static_cast<std::size_t>(std::count_if(text.begin(), text.end(), continues));
}

std::string_view rstrip(std::string_view text) {
  while (!text.empty()) {
    const std::size_t at = last_begin(text);
    if (!is_space(decode(text.substr(at))[0])) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string_view strip(std::string_view text) {
  return lstrip(rstrip(text));
}

std::string capitalize(std::string_view text) {
  const std::u32string codes = decode(text);
  std::string out;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    constexpr char32_t kSigma = 0x3A3, kFinalSigma = 0x3C2;
    if (i == 0) {
      append_mapped(out, codes[i], kTitle, kTitleStrings);
    } else if (codes[i] == kSigma && is_final_sigma(codes, i)) {
      unicode::append_utf8(out, kFinalSigma);
    } else {
      append_mapped(out, codes[i], kLower, kLowerStrings);
    }
  }
  return out;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (std::size_t at = 0;;) {
    const std::size_t next = text.find(from, at);
    out += text.substr(at, next - at);
    if (next == std::string_view::npos) return out;
    out += to;
    at = next + from.size();
  }
}

// The dot matches no newline, so a bracket that is closed on another line stays.
std::string remove_bracketed(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '[') {
      const std::size_t end = text.find_first_of("]\n", at + 1);
      if (end != std::string_view::npos && text[end] == ']') {
        at = end + 1;
        continue;
      }
    }
    out += text[at++];
  }
  return out;
}

}  // namespace grist::eval
