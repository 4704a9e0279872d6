#include "code_set.h"

#include <algorithm>
#include <array>
#include <string>

#include "unicode_properties.h"

namespace grist::unicode {

namespace {

template <std::size_t N> CodeSet set_of(const CodeRange (&ranges)[N]) {
  CodeSet out;
  for (const CodeRange& r : ranges) out.add({r.first, r.last});
  return out;
}

std::string plain(std::string_view name) {
  std::string out;
  for (const char c : name)
    if (c != ' ' && c != '_' && c != '-')
      out += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

struct LongName {
  std::string_view name, category;
};
constexpr auto kLongNames = std::to_array<LongName>({
    {"letter", "L"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"digit", "Nd"},
    {"punctuation", "P"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"unassigned", "Cn"},
    {"privateuse", "Co"},
});

// One letter: all categories that begin with it.
std::optional<CodeSet> category(std::string_view name) {
  std::array<bool, std::size(kCategoryNames)> wanted{};
  bool any = false;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    any |= wanted[i] = plain(kCategoryNames[i]).starts_with(name) && name.size() <= 2;
  if (!any) return {};
  CodeSet out;
  for (std::size_t i = 0; i < std::size(kCategoryRuns); ++i) {
    const std::uint32_t end =
        i + 1 < std::size(kCategoryRuns) ? kCategoryRuns[i + 1].first - 1 : CodeSet::kLast;
    if (wanted[kCategoryRuns[i].category]) out.add({kCategoryRuns[i].first, end});
  }
  return out;
}

}  // namespace

void CodeSet::add(const CodeSet& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  std::sort(ranges_.begin(), ranges_.end(),
            [](const CodeRange& a, const CodeRange& b) { return a.first < b.first; });
  std::vector<CodeRange> merged;
  for (const CodeRange& r : ranges_) {
    if (!merged.empty() && r.first <= merged.back().last + 1)
      merged.back().last = std::max(merged.back().last, r.last);
    else
      merged.push_back(r);
  }
  ranges_ = std::move(merged);
}

CodeSet CodeSet::complement() const {
  CodeSet out;
  std::uint32_t next = 0;
  for (const CodeRange& r : ranges_) {
    if (r.first > next) out.ranges_.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  if (next <= kLast) out.ranges_.push_back({next, kLast});
  return out;
}

CodeSet CodeSet::intersection(const CodeSet& other) const {
  CodeSet outside = complement();
  outside.add(other.complement());
  return outside.complement();
}

CodeSet CodeSet::ascii_case_closure() const {
  constexpr std::uint32_t kLongS = 0x17F, kKelvin = 0x212A;
  CodeSet out = *this;
  for (std::uint32_t upper = 'A'; upper <= 'Z'; ++upper) {
    CodeSet variants(upper, upper);
    variants.add({upper + 32, upper + 32});
    if (upper == 'S') variants.add({kLongS, kLongS});
    if (upper == 'K') variants.add({kKelvin, kKelvin});
    if (!intersection(variants).empty()) out.add(variants);
  }
  return out;
}

bool CodeSet::contains(std::uint32_t code) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const CodeRange& r) { return r.first <= code && code <= r.last; });
}

bool CodeSet::operator==(const CodeSet& other) const {
  return std::equal(ranges_.begin(), ranges_.end(), other.ranges_.begin(), other.ranges_.end(),
                    [](const CodeRange& a, const CodeRange& b) {
                      return a.first == b.first && a.last == b.last;
                    });
}

std::optional<CodeSet> property(std::string_view name) {
  const std::string wanted = plain(name);
  for (const LongName& l : kLongNames)
    if (l.name == wanted) return category(plain(l.category));
  if (wanted.empty()) return {};
  if (std::optional<CodeSet> found = category(wanted)) return found;
  for (const Script& s : kScripts) {
    if (plain(s.name) != wanted) continue;
    CodeSet out;
    for (const CodeRange& r : s.ranges) out.add({r.first, r.last});
    return out;
  }
  return {};
}

CodeSet spaces() {
  return set_of(kSpaces);
}

// Not the word characters of added tokens (kWordExtra): that library asks two engines.
CodeSet word_characters() {
  return *property("Word");
}

}  // namespace grist::unicode
