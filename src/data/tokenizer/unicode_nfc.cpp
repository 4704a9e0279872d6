#include "unicode_nfc.h"

#include <algorithm>

#include "unicode.h"
#include "unicode_nfc_tables.h"

namespace grist::unicode {

namespace {

constexpr std::size_t kCodes = 0x110000;

// Hangul syllables are composed by arithmetic (Unicode standard, section 3.12).
constexpr char32_t kSyllables = 0xAC00;
constexpr char32_t kLeading = 0x1100;
constexpr char32_t kVowels = 0x1161;
constexpr char32_t kTrailing = 0x11A7;  // one before the first
constexpr char32_t kNumLeading = 19;
constexpr char32_t kNumVowels = 21;
constexpr char32_t kNumTrailing = 28;
constexpr char32_t kNumSyllables = kNumLeading * kNumVowels * kNumTrailing;

std::uint64_t key_of(char32_t first, char32_t second) {
  return (static_cast<std::uint64_t>(first) << 32U) | second;
}

bool is_in(char32_t c, char32_t first, char32_t count) {
  return c >= first && c - first < count;
}

}  // namespace

Nfc::Nfc() : may_change_(kCodes, false) {
  for (const Composition& c : kCompositions) {
    compositions_.emplace(key_of(c.first, c.second), c.composed);
    decompositions_.emplace(c.composed, std::u32string{c.first, c.second});
    may_change_[c.second] = true;
  }
  for (const Decomposition& d : kDecompositions) {
    std::u32string parts;
    for (const std::uint32_t p : d.parts)
      if (p != 0) parts += p;
    decompositions_.emplace(d.code, std::move(parts));
    may_change_[d.code] = true;
  }
  for (const MarkRange& r : kMarks) {
    for (std::uint32_t c = r.first; c <= r.last; ++c) {
      classes_.emplace(c, static_cast<std::uint8_t>(r.combining_class));
      may_change_[c] = true;
    }
  }
  for (char32_t c = kVowels; c < kVowels + kNumVowels; ++c) may_change_[c] = true;
  for (char32_t c = kTrailing + 1; c < kTrailing + kNumTrailing; ++c) may_change_[c] = true;
}

bool Nfc::surely_normal(std::string_view text) const {
  for (std::size_t i = 0; i < text.size();) {
    // Nothing below U+0300 (lead byte 0xCC) changes by itself or combines with what is before it.
    if (static_cast<unsigned char>(text[i]) < 0xCC) {
      ++i;
      continue;
    }
    const Decoded d = decode_valid(text.data() + i);
    if (may_change_[d.code]) return false;
    i += d.bytes;
  }
  return true;
}

std::uint8_t Nfc::class_of(char32_t code) const {
  const auto found = classes_.find(code);
  return found == classes_.end() ? std::uint8_t{0} : found->second;
}

void Nfc::append_decomposed(char32_t code, std::vector<Mark>& out) const {
  if (is_in(code, kSyllables, kNumSyllables)) {
    const char32_t s = code - kSyllables;
    out.push_back({kLeading + s / (kNumVowels * kNumTrailing)});
    out.push_back({kVowels + s % (kNumVowels * kNumTrailing) / kNumTrailing});
    if (s % kNumTrailing != 0) out.push_back({kTrailing + s % kNumTrailing});
    return;
  }
  const auto found = decompositions_.find(code);
  if (found == decompositions_.end()) return out.push_back({code, class_of(code)});
  for (const char32_t part : found->second) append_decomposed(part, out);
}

char32_t Nfc::compose(char32_t first, char32_t second) const {
  if (is_in(first, kLeading, kNumLeading) && is_in(second, kVowels, kNumVowels))
    return kSyllables + ((first - kLeading) * kNumVowels + (second - kVowels)) * kNumTrailing;
  if (is_in(first, kSyllables, kNumSyllables) && (first - kSyllables) % kNumTrailing == 0 &&
      is_in(second, kTrailing + 1, kNumTrailing - 1))
    return first + (second - kTrailing);
  const auto found = compositions_.find(key_of(first, second));
  return found == compositions_.end() ? 0 : found->second;
}

void Nfc::normalize(std::string_view text, std::string& out) const {
  std::vector<Mark> marks;
  marks.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const Decoded d = decode_valid(text.data() + i);
    append_decomposed(d.code, marks);
    i += d.bytes;
  }
  // Each run of marks in the order of their classes; equal ones stay as they are.
  for (auto begin = marks.begin(); begin != marks.end();) {
    if (begin->combining_class == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, marks.end(), [](const Mark& m) { return m.combining_class == 0; });
    std::stable_sort(begin, end, [](const Mark& a, const Mark& b) {
      return a.combining_class < b.combining_class;
    });
    begin = end;
  }
  // A mark joins the last starter unless one of its class or a higher one stands between them.
  std::size_t kept = 0;
  std::size_t starter = marks.size();  // index among the kept; marks.size(): none yet
  for (std::size_t i = 0; i < marks.size(); ++i) {
    const Mark m = marks[i];
    if (starter < kept) {
      const bool adjacent = starter + 1 == kept;
      if (adjacent || marks[kept - 1].combining_class < m.combining_class) {
        const char32_t composed = compose(marks[starter].code, m.code);
        if (composed != 0) {
          marks[starter].code = composed;
          continue;
        }
      }
    }
    if (m.combining_class == 0) starter = kept;
    marks[kept++] = m;
  }
  out.clear();
  for (std::size_t i = 0; i < kept; ++i) append_utf8(out, marks[i].code);
}

}  // namespace grist::unicode
