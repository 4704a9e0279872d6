#include "grist/core/json.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "grist/core/error.h"
#include "grist/core/random.h"

namespace grist {
namespace {

std::string error_of(std::string_view text) {
  try {
    Json::parse(text, "file.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::bad_data);
    return e.what();
  }
  return "";
}

TEST(Json, RoundTripsEveryKind) {
  const char* kTexts[] = {"null",
                          "true",
                          "false",
                          "0",
                          "-17",
                          "9223372036854775807",
                          "-9223372036854775808",
                          "0.5",
                          "1e-300",
                          "\"\"",
                          "\"a\\\"b\\\\c\\n\\t\\r\\u0001\"",
                          "\"h\u00e9\u4e2d\U0001f600\"",
                          "[]",
                          "{}",
                          "[1, [2, []], {\"a\": {}}]",
                          "{\"z\": 1, \"a\": [true, null], \"m\": {\"k\": \"v\"}}"};
  for (const char* text : kTexts) {
    const Json j = Json::parse(text, "t");
    EXPECT_EQ(Json::parse(j.dump(), "t"), j) << text;
    EXPECT_EQ(Json::parse(j.dump(2), "t"), j) << text;
    EXPECT_EQ(Json::parse(j.dump(2), "t").dump(), j.dump()) << text;
  }
  EXPECT_EQ(Json::parse(kTexts[15], "t").dump(), kTexts[15]);  // the order of keys stays
}

TEST(Json, ReadsEscapes) {
  EXPECT_EQ(Json::parse(R"("\u0041\ud83d\ude00\/\b\f")", "t").as_string(), "A\U0001f600/\b\f");
}

TEST(Json, KeepsIntegersAndNumbersApart) {
  EXPECT_TRUE(Json::parse("3", "t").is_int());
  EXPECT_FALSE(Json::parse("3.0", "t").is_int());
  EXPECT_EQ(Json(3.0).dump(), "3.0");
  EXPECT_EQ(Json::parse("3", "t").as_double(), 3.0);
  EXPECT_THROW(Json::parse("3.0", "t").as_int(), Error);
}

TEST(Json, RefusesDuplicateKeysAtAnyDepth) {
  EXPECT_NE(error_of(R"({"a": 1, "a": 1})").find("duplicate key \"a\""), std::string::npos);
  EXPECT_NE(error_of(R"([{"x": {"b": 1, "c": 2, "b": 3}}])").find("duplicate key \"b\""),
            std::string::npos);
  EXPECT_EQ(error_of(R"([{"a": 1}, {"a": {"a": 2}}])"), "");
}

TEST(Json, LimitsTheDepth) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_EQ(error_of(nested(64)), "");
  EXPECT_NE(error_of(nested(65)).find("nested deeper than 64"), std::string::npos);
  EXPECT_NE(error_of(std::string(1000000, '[')).find("nested deeper"), std::string::npos);
}

TEST(Json, RefusesEveryTruncationAndNamesTheFile) {
  const std::string text =
      R"({"name": "caf\u00e9", "list": [1, -2.5e3, true, null], "deep": {"x": {"y": "z"}}})";
  ASSERT_EQ(error_of(text), "");
  for (std::size_t n = 0; n < text.size(); ++n) {
    const std::string message = error_of(text.substr(0, n));
    EXPECT_EQ(message.rfind("file.json: ", 0), 0U) << "cut at " << n << ": " << message;
  }
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text :
       {"[1,]", "{\"a\":1,}", "{a: 1}", "'x'", "01", "+1", "1.", ".5", "nan", "Infinity", "[1] 2",
        "// c\n1", "\"\n\"", "\"\\x\"", "\"\\ud800\"", "tru", "{\"a\" 1}"}) {
    EXPECT_NE(error_of(text), "") << text;
  }
  EXPECT_NE(error_of("\"\xff\""), "");                  // not UTF-8
  EXPECT_NE(error_of("\"\xc0\xaf\""), "");              // overlong
  EXPECT_NE(error_of("\"\xed\xa0\x80\""), "");          // a surrogate
  EXPECT_NE(error_of(std::string_view("1\0", 2)), "");  // the parser's own end mark
  EXPECT_NE(error_of(std::string_view("[1]\0x", 5)), "");
}

TEST(Json, AccessorsSayWhatIsThere) {
  const Json j = Json::parse(R"({"a": [1]})", "t");
  try {
    j.at("a").as_string();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::bad_data);
    EXPECT_STREQ(e.what(), "JSON: wanted a string, found an array");
  }
  EXPECT_EQ(j.find("b"), nullptr);
  EXPECT_EQ(j.at("a").find("b"), nullptr);
  EXPECT_THROW(j.at("b"), Error);
}

TEST(Json, SetReplacesAndKeepsOrder) {
  Json j;
  j.set("b", 1);
  j.set("a", 2);
  j.set("b", "x");
  Json list;
  list.push_back(1.5);
  j.set("c", list);
  EXPECT_EQ(j.dump(), R"({"b": "x", "a": 2, "c": [1.5]})");
  EXPECT_EQ(Json(std::numeric_limits<double>::quiet_NaN()).dump(), "null");
  EXPECT_EQ(Json(-std::numeric_limits<double>::infinity()).dump(), "null");
}

TEST(Shortest, ReadsBackAsTheSameNumber) {
  EXPECT_EQ(shortest(0.1), "0.1");
  EXPECT_EQ(shortest(0.1F), "0.1");
  EXPECT_EQ(shortest(0.3F), "0.3");
  EXPECT_EQ(shortest(16777216.0F), "16777216.0");
  EXPECT_EQ(shortest(1.0), "1.0");
  EXPECT_EQ(shortest(-0.0), "-0.0");
  EXPECT_EQ(shortest(1e22), "1e+22");
  EXPECT_EQ(shortest(5e-324), "5e-324");
  const Random random(1, "shortest");
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const auto d = std::bit_cast<double>(random.bits(i));
    if (std::isfinite(d)) {
      ASSERT_EQ(Json::parse(Json(d).dump(), "t").as_double(), d);
    }
    const auto f = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits(i)));
    if (std::isfinite(f) && std::abs(f) > 1e-37F) {
      ASSERT_EQ(std::stof(shortest(f)), f);
    }
  }
}

}  // namespace
}  // namespace grist
