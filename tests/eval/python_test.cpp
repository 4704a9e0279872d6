// What is taken over from Python: its random numbers, its text functions, its literals.
#include <gtest/gtest.h>

#include "grist/core/error.h"
#include "grist/core/hash.h"
#include "grist/core/random.h"
#include "grist/core/utf8.h"
#include "python_literal.h"
#include "python_random.h"
#include "python_text.h"
#include "support/scale.h"

namespace grist::eval {
namespace {

using Places = std::vector<std::size_t>;

// Values of CPython 3.11.
TEST(PythonRandom, DrawsWhatCPythonDraws) {
  PythonRandom r(1234);
  EXPECT_EQ(r.sample(1000, 5), (Places{989, 796, 451, 119, 7}));
  EXPECT_EQ(r.sample(1000, 5), (Places{92, 932, 965, 961, 826}));
  PythonRandom from_lists(1234);  // small populations are drawn from in another way
  EXPECT_EQ(from_lists.sample(20, 20),
            (Places{14, 3, 0, 2, 1, 10, 11, 15, 12, 5, 18, 17, 8, 6, 7, 16, 9, 4, 13, 19}));
  EXPECT_EQ(from_lists.sample(85, 6), (Places{11, 23, 14, 1, 64, 62}));
  EXPECT_EQ(from_lists.sample(86, 6), (Places{31, 8, 85, 69, 59, 76}));
  EXPECT_EQ(from_lists.sample(37, 7), (Places{5, 32, 2, 17, 4, 19, 15}));
  EXPECT_EQ(from_lists.sample(1000000, 3), (Places{891476, 372495, 279397}));
  PythonRandom long_run(1234);
  for (int i = 0; i < 2000; ++i) long_run.bits(32);
  EXPECT_EQ(long_run.bits(32), 558462902U);
  EXPECT_EQ(long_run.bits(7), 7U);
  EXPECT_EQ(PythonRandom(0).bits(32), 3626764237U);
  EXPECT_TRUE(r.sample(3, 0).empty());
  EXPECT_THROW(r.sample(3, 4), Error);
}

TEST(PythonText, CapitalizeLowersAllButTheFirst) {
  EXPECT_EQ(capitalize("i met Anna in New York"), "I met anna in new york");
  EXPECT_EQ(capitalize(""), "");
  EXPECT_EQ(capitalize("ßTRANGE İSTANBUL"), "Sstrange i̇stanbul");
  EXPECT_EQ(capitalize("ΟΔΟΣ ΣΑΣ. Σ'Σ"), "Οδος σας. σ'ς");
  EXPECT_EQ(capitalize("ǆ"), "ǅ");
}

TEST(PythonText, CapitalizeIsCPythonsForEveryCharacter) {
  Hasher all;
  const char32_t end = test::kSanitized ? 0x3000 : 0x110000;
  for (char32_t c = 0; c < end; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    for (const char32_t part : {c, char32_t{U'a'}, c, char32_t{U'Σ'}, c})
      unicode::append_utf8(text, part);
    const std::string out = capitalize(text);
    all.update(out.data(), out.size());
  }
  EXPECT_EQ(hash_hex(all.digest()), test::kSanitized ? "14dc14c25261f63f" : "4b918aa8e98bef57");
}

TEST(PythonText, StripsWhatUnicodeCallsSpace) {
  EXPECT_EQ(strip("\u00a0\t x\u3000y \u2029\x1f"), "x\u3000y");
  EXPECT_EQ(strip(" \n"), "");
  EXPECT_EQ(rstrip(" x \u0085"), " x");
  EXPECT_EQ(strip("\u200bx"), "\u200bx");  // a zero-width space is none
  EXPECT_EQ(code_points("naïve 東京"), 8U);
}

TEST(PythonText, RemovesBracketsOfOneLine) {
  EXPECT_EQ(remove_bracketed("[header] a [b] c [d\ne] [f [g] h]"), " a  c [d\ne]  h]");
  EXPECT_EQ(replace("a   b  c", "  ", " "), "a  b c");
  EXPECT_EQ(replace("", "  ", " "), "");
}

TEST(PythonLiteral, ReadsWhatReprWrites) {
  const Json j = parse_python_literal(
      R"([{'q': "it's", "o": ['\n\x07\u2028\U0001f600\'', 'a' "b", '\101\q'], 'n': -3, 't': (True, None)}, ])",
      "x");
  const Json& d = j.as_array()[0];
  EXPECT_EQ(d.at("q").as_string(), "it's");
  EXPECT_EQ(d.at("o").as_array()[0].as_string(), "\n\a\u2028\U0001f600'");
  EXPECT_EQ(d.at("o").as_array()[1].as_string(), "ab");
  EXPECT_EQ(d.at("o").as_array()[2].as_string(), "A\\q");
  EXPECT_EQ(d.at("n").as_int(), -3);
  EXPECT_EQ(d.at("t").dump(), "[true, null]");
}

TEST(PythonLiteral, RefusesWithThePlace) {
  for (const char* bad : {"", "[", "[1", "{'a'}", "{1: 2}", "'abc", "'\\x4'", "'\\ud800'",
                          "'\\U00110000'", "[1] 2", "x", "__import__('os')", "[1 2]",
                          "{'a': 1 'b': 2}", "'a\nb'", "99999999999999999999", "'\\"})
    try {
      parse_python_literal(bad, "here");
      ADD_FAILURE() << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::bad_data) << bad;
      EXPECT_NE(std::string(e.what()).find("here: not a Python literal"), std::string::npos) << bad;
    }
  EXPECT_THROW(parse_python_literal(std::string(100000, '['), "deep"), Error);
}

TEST(PythonLiteral, AnyBytesAreReadOrRefused) {
  const std::string good =
      R"([{'question': "it's \x41 _ .", 'answer': 'B', 'options': ['a', 'b\n', "c\u00e9", '\\']}, {'n': -12}])";
  const Random random(3, "literal");
  std::uint64_t at = 0;
  int read = 0, refused = 0;
  for (int i = 0; i < test::scaled(20000); ++i) {
    std::string text = good;
    for (std::uint64_t n = random.below(at++, 4) + 1; n > 0; --n) {
      const std::size_t place = random.below(at++, text.size());
      switch (random.below(at++, 4)) {
        case 0: text[place] = static_cast<char>(random.below(at++, 256)); break;
        case 1: text.erase(place, random.below(at++, 8) + 1); break;
        case 2: text.insert(place, text.substr(random.below(at++, text.size()), 6)); break;
        default: text.resize(place); break;
      }
      if (text.empty()) text = "[";
    }
    try {
      parse_python_literal(text, "x").dump();
      ++read;
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ExitCode::bad_data);
      ++refused;
    }
  }
  EXPECT_GT(refused, read);
}

}  // namespace
}  // namespace grist::eval
