// The hand-written scanners against PCRE2, merging against its definition, UTF-8 repair.
#include "pretokenize.h"

#include <gtest/gtest.h>

#include <array>
#include <map>

#include "bpe.h"
#include "grist/core/error.h"
#include "parity_text.h"
#include "pattern_golden.h"
#include "support/scale.h"
#include "unicode.h"
#include "unicode_nfc.h"

namespace grist::test {
namespace {

std::vector<std::string> cut_all(const Cutter& cutter, std::string_view text, std::size_t batch) {
  MatchState state;
  std::vector<std::string> pieces;
  std::vector<std::uint32_t> ends(batch);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t count = cutter.cut(text, begin, ends, state);
    EXPECT_GT(count, 0U);
    if (count == 0) break;
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_GT(ends[i], begin);
      pieces.emplace_back(text.substr(begin, ends[i] - begin));
      begin = ends[i];
    }
  }
  return pieces;
}

// Characters whose classes no Unicode version of the last years changed.
std::string random_text(Lcg& r, std::uint32_t parts) {
  static constexpr std::array<std::array<std::uint32_t, 2>, 10> kBlocks = {{{0x00, 0x7F},
                                                                            {0x20, 0x7E},
                                                                            {0xA0, 0x24F},
                                                                            {0x370, 0x3FF},
                                                                            {0x660, 0x669},
                                                                            {0x2000, 0x2027},
                                                                            {0x2160, 0x2188},
                                                                            {0x4E00, 0x4E20},
                                                                            {0x1F600, 0x1F640},
                                                                            {0x300, 0x310}}};
  static constexpr std::string_view kParts[] = {
      "'s",     "'LL",      "'re", "'\u017f", " '",   "  ", "\n", "\r\n", "\t",    "\u00a0",
      "\u3000", "\xC2\x85", "x",   "123",     " \n ", "'",  "A",  " 7",   "\u180e"};
  std::string out;
  for (std::uint32_t i = 0; i < parts; ++i) {
    if (r.below(2) == 0) {
      out += kParts[r.below(std::size(kParts))];
    } else {
      const auto& block = kBlocks[r.below(kBlocks.size())];
      out += utf8(block[0] + r.below(block[1] - block[0] + 1));
    }
  }
  return out;
}

class ScannerAgainstPcre : public ::testing::TestWithParam<std::string_view> {};

TEST_P(ScannerAgainstPcre, CutsRandomTextAlike) {
  const unicode::Classes classes;
  const auto scanner = make_scanner(GetParam(), classes);
  ASSERT_NE(scanner, nullptr);
  const auto regex = make_regex_cutter(GetParam(), "test");
  Lcg r(42);
  for (int trial = 0; trial < 20000; ++trial) {
    const std::string text = random_text(r, 1 + r.below(20));
    ASSERT_EQ(cut_all(*scanner, text, 5), cut_all(*regex, text, 5)) << '"' << text << '"';
  }
}

INSTANTIATE_TEST_SUITE_P(Patterns, ScannerAgainstPcre,
                         ::testing::Values(kGpt2Pattern, kLlama3Pattern, kQwen2Pattern,
                                           kDigitPattern, kDigitsPattern));

TEST(Scanner, KnowsOnlyItsPatterns) {
  const unicode::Classes classes;
  EXPECT_EQ(make_scanner(R"(\p{L}+)", classes), nullptr);
}

TEST(RegexCutter, GapsBetweenMatchesArePieces) {
  const auto cutter = make_regex_cutter("[0-9]+", "test");
  EXPECT_EQ(cut_all(*cutter, "ab12c3", 2), (std::vector<std::string>{"ab", "12", "c", "3"}));
  EXPECT_EQ(cut_all(*cutter, "none", 2), (std::vector<std::string>{"none"}));
}

TEST(RegexCutter, WhiteSpaceHasNoMongolianVowelSeparator) {
  EXPECT_EQ(cut_all(*make_regex_cutter(R"(\s)", "test"), "a\u180e b", 4),
            (std::vector<std::string>{"a\u180e", " ", "b"}));
  EXPECT_EQ(cut_all(*make_regex_cutter(R"([\s,])", "test"), "a\u180e,b", 4),
            (std::vector<std::string>{"a\u180e", ",", "b"}));
  EXPECT_EQ(cut_all(*make_regex_cutter(R"(\S+)", "test"), "a\u180e b", 4),
            (std::vector<std::string>{"a\u180e", " ", "b"}));
}

TEST(RegexCutter, RefusesWhatItWouldReadOtherwise) {
  for (const char* pattern :
       {"(",           "a)",      "a*",      R"(\bword)", "[[:alpha:]]", "[a&&b]",
        R"(\h)",       "(?m:.+)", R"(\R)",   "(*ANY)x",   "[z-a]",       "[a",
        R"((a)\1)",    "a{,2}",   "a{2}+",   "a{2}?",     "(?x: a)",     "a(?i)b",
        R"(\p{Moon})", R"(\p{L)", R"(\xff)", "(?i:ss)",   "(?i:é)",      R"((?i:[\p{L}]))",
        R"([\s-z])",   "[a-c-e]", "\\"}) {
    try {
      make_regex_cutter(pattern, "here");
      ADD_FAILURE() << pattern << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::bad_data) << pattern;
      EXPECT_TRUE(std::string_view(e.what()).starts_with("here: ")) << e.what();
    }
  }
}

TEST(RegexCutter, SetsAreThoseOfOniguruma) {
  const auto pieces = [](const char* pattern, std::string_view text) {
    return cut_all(*make_regex_cutter(pattern, "test"), text, 4);
  };
  using Pieces = std::vector<std::string>;
  EXPECT_EQ(pieces(R"(\w+)", "a_1 \u0b83"), (Pieces{"a_1", " ", "\u0b83"}));
  EXPECT_EQ(pieces("[a[bc]]+", "xabcx"), (Pieces{"x", "abc", "x"}));
  EXPECT_EQ(pieces("[a-f&&[^c]]+", "abcd"), (Pieces{"ab", "c", "d"}));
  EXPECT_EQ(pieces(R"([^\S\n]+)", "a \t\n"), (Pieces{"a", " \t", "\n"}));
  EXPECT_EQ(pieces(R"(\p{^L}+)", "a12"), (Pieces{"a", "12"}));
  EXPECT_EQ(pieces("[]-]+", "a]-"), (Pieces{"a", "]-"}));
  EXPECT_EQ(pieces("(?i:'s)", "it'S'\u017f"), (Pieces{"it", "'S", "'\u017f"}));
  EXPECT_EQ(pieces("(?i:[a-k])b", "KBk\u212ab"), (Pieces{"KBk", "\u212ab"}));
  EXPECT_EQ(pieces(R"(\p{Han}+|\x{41}\u0042)", "AB\u4e2d\u3042"),
            (Pieces{"AB", "\u4e2d", "\u3042"}));
}

TEST(RegexCutter, StagesInTurnDoNotBeginATextAgain) {
  const std::string text(1U << 20U, '7');
  const auto cutter = make_regex_cutter("[0-9]{3}", "test");
  MatchState state;
  std::array<std::uint32_t, 4> ends{};
  std::size_t pieces = 0;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t count = cutter->cut(text, from, ends, state);
    from = ends[count - 1];
    pieces += count;
  }
  EXPECT_EQ(pieces, text.size() / 3 + 1);
}

// Every character below U+32400 and of the tags, and some of the rest: as the script's blocks().
std::vector<std::string> blocks_of_all_characters() {
  std::vector<std::string> blocks;
  for (std::uint32_t first = 0; first < 0x110000; first += 256) {
    if ((first >= 0xD800 && first < 0xE000) ||
        (first >= 0x32400 && first % 0x8000 != 0 && first >> 8U != 0xE01))
      continue;
    std::string& text = blocks.emplace_back();
    for (std::uint32_t c = first; c < first + 256; ++c) {
      const std::string s = utf8(c);
      text += "a" + s + "'s" + s + "A" + s + " 1" + s;
    }
  }
  return blocks;
}

TEST(RegexCutter, CutsEveryCharacterAsPyPiTokenizersDoes) {
  const std::vector<std::string> blocks = blocks_of_all_characters();
  for (std::size_t g = 0; g < std::size(kPatternGolden); g += test::kStride) {
    const PatternGolden& golden = kPatternGolden[g];
    const auto cutter = make_regex_cutter(golden.pattern, golden.name);
    MatchState state;
    std::array<std::uint32_t, 64> ends{};
    std::uint64_t sum = 0xCBF29CE484222325ULL;
    for (const std::string& text : blocks) {
      for (std::size_t from = 0; from < text.size();) {
        const std::size_t count = cutter->cut(text, from, ends, state);
        from = ends[count - 1];
        for (std::size_t i = 0; i < count; ++i)
          for (unsigned shift = 0; shift < 32; shift += 8)
            sum = (sum ^ (ends[i] >> shift & 0xFFU)) * 0x100000001B3ULL;
      }
    }
    EXPECT_EQ(sum, golden.ends) << golden.name;
  }
}

TEST(RegexCutter, EscapedTextMatchesItself) {
  const std::string literal = R"(a.b*c\d[e](f){g}|h^i$j?k+l-m n)";
  const auto cutter = make_regex_cutter(escape_pattern(literal), "test");
  EXPECT_EQ(cut_all(*cutter, "x" + literal + "y", 8),
            (std::vector<std::string>{"x", literal, "y"}));
}

TEST(RegexCutter, LongRunsDoNotExhaustTheMatcher) {
  const auto cutter = make_regex_cutter(kLlama3Pattern, "test");
  const std::string spaces(4U << 20U, ' ');
  EXPECT_EQ(cut_all(*cutter, spaces + "x", 8).size(), 2U);
  EXPECT_EQ(cut_all(*cutter, std::string(4U << 20U, 'x'), 8).size(), 1U);
}

// The definition: again and again, the leftmost pair of the lowest rank.
std::vector<std::int32_t> merge_slowly(std::vector<std::int32_t> ids,
                                       const std::map<std::pair<int, int>, int>& ranks,
                                       const std::vector<Merge>& merges) {
  for (;;) {
    std::size_t best = ids.size();
    int best_rank = static_cast<int>(merges.size());
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found != ranks.end() && found->second < best_rank) {
        best_rank = found->second;
        best = i;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(Bpe, ShortAndLongPiecesFollowTheDefinition) {
  Lcg r(7);
  std::vector<Merge> merges;
  std::map<std::pair<int, int>, int> ranks;
  for (int i = 0; i < 60; ++i) {
    const Merge m{static_cast<int>(r.below(4 + i)), static_cast<int>(r.below(4 + i)), 4 + i};
    if (ranks.emplace(std::pair(m.left, m.right), static_cast<int>(merges.size())).second)
      merges.push_back(m);
  }
  const MergeTable table(merges);
  std::array<std::int32_t, 256> byte_ids{};
  for (int b = 0; b < 256; ++b) byte_ids[b] = b % 4;
  BpeScratch scratch;
  for (const std::uint32_t size : {1U, 2U, 3U, 31U, 95U, 96U, 97U, 98U, 300U, 700U}) {
    for (int trial = 0; trial < 20; ++trial) {
      std::string piece;
      std::vector<std::int32_t> ids;
      for (std::uint32_t i = 0; i < size; ++i) {
        piece += static_cast<char>(r.below(4));
        ids.push_back(piece.back());
      }
      std::vector<std::int32_t> got;
      scratch.merge(table, byte_ids, piece, got);
      ASSERT_EQ(got, merge_slowly(ids, ranks, merges)) << size;
    }
  }
}

TEST(Utf8, RepairReplacesMaximalPartsAsPythonDoes) {
  const std::string r = "\uFFFD";
  const std::vector<std::array<std::string, 2>> cases = {
      {"", ""},
      {"plain ascii, long enough for words", "plain ascii, long enough for words"},
      {"é水😀", "é水😀"},
      {"\x80", r},
      {"a\xFF\xFE"
       "b",
       "a" + r + r + "b"},
      {"\xC0\xAF", r + r},                  // overlong
      {"\xE0\x80\x80", r + r + r},          // overlong
      {"\xED\xA0\x80", r + r + r},          // a surrogate
      {"\xF4\x90\x80\x80", r + r + r + r},  // beyond U+10FFFF
      {"\xE6\xB0", r},                      // cut off at the end
      {"\xE6\xB0"
       "A",
       r + "A"},
      {"\xF0\x9F\x98", r},
      {"\xF0\x9F\x98\xF0\x9F\x98\x80", r + "😀"},
      {"\xC3", r},
      {"12345678\x80"
       "12345678",
       "12345678" + r + "12345678"},
  };
  for (const auto& [bytes, want] : cases) {
    std::string got;
    const std::uint64_t replaced = unicode::repair_utf8(bytes, got);
    EXPECT_EQ(got, want);
    std::uint64_t marks = 0;
    for (std::size_t at = want.find(r); at != std::string::npos; at = want.find(r, at + 3)) ++marks;
    EXPECT_EQ(replaced, marks);
    EXPECT_EQ(unicode::valid_prefix(bytes, 0) == bytes.size(), marks == 0);
    EXPECT_EQ(unicode::valid_prefix(got, 0), got.size());
  }
}

TEST(Nfc, ComposesAsTheStandardSays) {
  const unicode::Nfc nfc;
  const std::vector<std::array<std::string, 2>> cases = {
      {"e\u0301", "\u00e9"},
      {"A\u030A", "\u00c5"},
      {"\u212B", "\u00c5"},                     // a singleton
      {"a\u0323\u0302", "\u1ead"},              // two marks
      {"a\u0302\u0323", "\u1ead"},              // in the wrong order
      {"a\u0302\u0301\u0323", "\u1ead\u0301"},  // one is left over
      {"q\u0302\u0323", "q\u0323\u0302"},       // reordered only
      {"a\u0304\u0304", "\u0101\u0304"},        // the second is blocked
      {"\u0301e", "\u0301e"},                   // nothing before it
      {"\u0958", "\u0915\u093c"},               // excluded from composition
      {"\u1100\u1161", "\uac00"},               // Hangul: leading + vowel
      {"\u1100\u1161\u11a8", "\uac01"},         // + trailing
      {"\uac00\u11a8", "\uac01"},
      {"\uac01\u11a8", "\uac01\u11a8"},
      {"\U0001D15E", "\U0001D157\U0001D165"},
  };
  for (const auto& [text, want] : cases) {
    std::string got;
    nfc.normalize(text, got);
    EXPECT_EQ(got, want);
    EXPECT_TRUE(text == want || !nfc.surely_normal(text)) << want;
  }
  EXPECT_TRUE(nfc.surely_normal("plain, \u00e9t\u00e9, \u6c34\u8eca, \U0001F600, \uac01"));
}

TEST(ByteAlphabet, IsABijectionOverPrintableCharacters) {
  const unicode::ByteAlphabet alphabet;
  std::string all, spelling;
  for (int b = 0; b < 256; ++b) {
    all += static_cast<char>(b);
    unicode::append_utf8(spelling, alphabet.character(static_cast<std::uint8_t>(b)));
  }
  std::string back;
  EXPECT_TRUE(alphabet.to_bytes(spelling, back));
  EXPECT_EQ(back, all);
  EXPECT_EQ(alphabet.character(' '), U'\u0120');
  EXPECT_EQ(alphabet.character('\n'), U'\u010a');
  EXPECT_EQ(alphabet.character('t'), U't');
  EXPECT_FALSE(alphabet.to_bytes("a b", back));
  EXPECT_FALSE(alphabet.to_bytes("水", back));
}

}  // namespace
}  // namespace grist::test
