// The safetensors reader on good, wrong and hostile files, and the writer.
#include "grist/ckpt/safetensors.h"

#include <cstdlib>
#include <numeric>

#include "ckpt/fixture.h"
#include "grist/core/check.h"

namespace grist::test {
namespace {

namespace fs = std::filesystem;

std::string with_length(const std::string& json, const std::string& data = "") {
  std::string out;
  for (std::uint64_t n = json.size(), i = 0; i < 8; ++i, n >>= 8) out += static_cast<char>(n & 255);
  return out + json + data;
}

// As SafetensorsReader does, from memory.
SafetensorsHeader parse(const std::string& file) {
  if (file.size() < 8) fail(ExitCode::bad_data, "f: short");
  const auto bytes = std::as_bytes(std::span(file));
  const std::uint64_t n = safetensors_header_length(bytes.first<8>(), file.size(), "f");
  return parse_safetensors_header(std::string_view(file).substr(8, n), file.size(), "f");
}

TEST(Safetensors, ReadsAFileOfTheReferenceLibrary) {
  const SafetensorsReader file(fs::path(GRIST_TESTS_DIR) / "ckpt/golden/tiny.safetensors");

  EXPECT_EQ(file.header().entries.size(), 9U);
  EXPECT_EQ(*file.header().find_metadata("format"), "pt");
  EXPECT_EQ(*file.header().find_metadata("made by"), "reference");
  EXPECT_EQ(file.header().find_metadata("other"), nullptr);
  std::vector<float> weight(15);
  file.read("weight", {weight.data(), DType::f32, {3, 5}});
  for (std::size_t i = 0; i < 15; ++i) EXPECT_EQ(weight[i], static_cast<float>(i) / 4 - 1);
  std::vector<std::uint16_t> half(6);
  file.read("half.weight", {half.data(), DType::bf16, {2, 3}});
  EXPECT_EQ(half, (std::vector<std::uint16_t>{0, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0}));
  double scalar = 0;
  file.read("scalar", {&scalar, DType::f64, {}});
  EXPECT_EQ(scalar, 2.5);
  std::vector<std::int64_t> ids(7);
  file.read("ids", {ids.data(), DType::i64, {7}});
  EXPECT_EQ(ids[0], -3);
  EXPECT_EQ(ids[6], 3);
  std::vector<std::int32_t> quoted(2);
  file.read("quote \" and \\ and \u00e9 \u4e2d", {quoted.data(), DType::i32, {2}});
  EXPECT_EQ(quoted[1], -2);
  EXPECT_EQ(file.at("nothing").shape, (Shape{0, 7}));
  EXPECT_EQ(file.at("not for grist").type, "F16");
  EXPECT_FALSE(file.at("not for grist").dtype.has_value());
  EXPECT_EQ(file.at("flags").type, "BOOL");
}

TEST(Safetensors, WrongDtypeShapeOrNameSaysBoth) {
  const SafetensorsReader file(fs::path(GRIST_TESTS_DIR) / "ckpt/golden/tiny.safetensors");
  std::vector<float> x(15);
  std::string what;
  EXPECT_EQ(code_of(
                [&] {
                  file.read("weight", {x.data(), DType::f32, {5, 3}});
                },
                &what),
            ExitCode::bad_data);
  EXPECT_NE(what.find("\"weight\" is F32 (3, 5), F32 (5, 3) was expected"), std::string::npos)
      << what;
  EXPECT_EQ(code_of([&] {
              file.read("weight", {x.data(), DType::i32, {3, 5}});
            }),
            ExitCode::bad_data);
  EXPECT_EQ(code_of(
                [&] {
                  file.read("wait", {x.data(), DType::f32, {3, 5}});
                },
                &what),
            ExitCode::bad_data);
  EXPECT_NE(what.find("has no tensor \"wait\""), std::string::npos) << what;
}

// Set GRIST_TEST_OUTPUT to a folder to keep the file for scripts/make_safetensors_golden.py
// --check.
TEST(Safetensors, RoundTripsAndKeepsTheDocumentedOrder) {
  const TemporaryFolder temp;
  const char* keep = std::getenv("GRIST_TEST_OUTPUT");
  const fs::path path = (keep == nullptr ? temp.path() : fs::path(keep)) / "ours.safetensors";
  State state(9);
  std::vector<SafetensorsTensor> tensors;
  for (const TensorSpec& t : state.specs())
    tensors.push_back({t.name, {state.bytes(t.name).data(), t.dtype, t.shape}});
  tensors.push_back({"quote \" \\ \n \x01 \u00e9", {state.bytes("bytes").data(), DType::u8, {5}}});

  write_safetensors(path, tensors, {{"format", "pt"}, {"k\"", "v\\"}});

  const SafetensorsReader file(path);
  EXPECT_EQ(*file.header().find_metadata("k\""), "v\\");
  EXPECT_EQ(file.header().entries.size(), tensors.size());
  EXPECT_EQ(file.header().entries[0].begin % 8, 0U);
  std::size_t last = 8;
  for (const SafetensorsEntry& e : file.header().entries) {
    EXPECT_LE(size_of(*e.dtype), last);
    last = size_of(*e.dtype);
    EXPECT_EQ(e.begin % size_of(*e.dtype), 0U) << e.name;
  }
  for (const SafetensorsTensor& t : tensors) {
    std::vector<std::byte> got(t.view.bytes());
    file.read(t.name, {got.data(), t.view.dtype, t.view.shape});
    EXPECT_TRUE(got.empty() || std::memcmp(got.data(), t.view.data, got.size()) == 0) << t.name;
  }
}

TEST(Safetensors, AFileWithoutTensorsIsLegal) {
  const TemporaryFolder temp;
  write_safetensors(temp / "empty", {}, {});
  EXPECT_EQ(SafetensorsReader(temp / "empty").header().entries.size(), 0U);
  EXPECT_EQ(parse(with_length("{}")).entries.size(), 0U);
}

TEST(Safetensors, MissingShortAndForeignFilesSayWhatIsWrong) {
  const TemporaryFolder temp;
  EXPECT_EQ(code_of([&] { SafetensorsReader(temp / "no"); }), ExitCode::not_found);
  for (const char* text : {"", "1234567", "#!/bin/sh and more text than eight bytes"}) {
    File::create(temp / "f").append(text);
    std::string what;
    EXPECT_EQ(code_of([&] { SafetensorsReader(temp / "f"); }, &what), ExitCode::bad_data) << text;
    EXPECT_NE(what.find((temp / "f").string()), std::string::npos) << what;
  }
}

struct BadHeader {
  const char* json;
  const char* problem;
};

class BadHeaders : public ::testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaders, AreRefusedWithTheReason) {
  std::string what;
  EXPECT_EQ(code_of([&] { parse(with_length(GetParam().json, std::string(8, 'x'))); }, &what),
            ExitCode::bad_data);
  EXPECT_NE(what.find(GetParam().problem), std::string::npos) << what;
}

#define T "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
INSTANTIATE_TEST_SUITE_P(
    Table, BadHeaders,
    ::testing::Values(
        BadHeader{"[]", "does not open with {"}, BadHeader{" {}", "does not open with {"},
        BadHeader{"{}", "holds 8 bytes of data, its header describes 0"},
        BadHeader{"{\"a\":" T "} x", "text after"},
        BadHeader{"{\"a\":" T ",}", "a string was expected"},
        BadHeader{"{\"a\":" T, "'}' was expected"}, BadHeader{"{\"a\" " T "}", "':' was expected"},
        BadHeader{"{\"a\":" T ",\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}",
                  "appears twice"},
        BadHeader{"{\"a\":" T ",\"b\":" T "}", "(overlap)"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "(hole)"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                  "bytes after the last tensor"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}",
                  "(truncated)"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
                  "do not hold the 12 bytes"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
                  "do not hold"},
        BadHeader{"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                  "unknown dtype \"F31\""},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}",
                  "lacks dtype, shape or data_offsets"},
        BadHeader{
            "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
            "a second \"dtype\""},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"x\":1,\"shape\":[2],\"data_offsets\":[0,8]}}",
                  "a key other than"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}",
                  "whole number"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}",
                  "']' was expected"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[02],\"data_offsets\":[0,8]}}",
                  "leading zero"},
        BadHeader{
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}",
            "number too large"},
        BadHeader{
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615],\"data_offsets\":[0,8]}}",
            "extent too large"},
        BadHeader{
            "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967298],\"data_offsets\":[0,8]}}",
            "is too large"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
                  "more than 5 dims"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}",
                  "'[' was expected"},
        BadHeader{"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}",
                  "']' was expected"},
        BadHeader{"{\"__metadata__\":{\"a\":1},\"a\":" T "}", "a string was expected"},
        BadHeader{"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"},\"a\":" T "}",
                  "duplicate key in __metadata__"},
        BadHeader{"{\"__metadata__\":{},\"__metadata__\":{},\"a\":" T "}", "a second __metadata__"},
        BadHeader{"{\"\\ud800\":" T "}", "lone surrogate"},
        BadHeader{"{\"\\udc00x\":" T "}", "lone surrogate"},
        BadHeader{"{\"\\ud800\\u0041\":" T "}", "lone surrogate"},
        BadHeader{"{\"\\x\":" T "}", "unknown escape"},
        BadHeader{"{\"\\u12g4\":" T "}", "bad \\u escape"},
        BadHeader{"{\"a\n\":" T "}", "control character"},
        BadHeader{"{\"\xC3\x28\":" T "}", "not UTF-8"},
        BadHeader{"{\"\xED\xA0\x80\":" T "}", "not UTF-8"},
        BadHeader{"{\"\xC0\xAF\":" T "}", "not UTF-8"},
        BadHeader{"{\"\xF5\x80\x80\x80\":" T "}", "not UTF-8"},
        BadHeader{"{\"\xE2\x82", "not UTF-8"}, BadHeader{"{\"abc", "unfinished string"}));
#undef T

TEST(Safetensors, HeaderLengthIsCheckedBeforeAnythingIsAllocated) {
  for (const std::uint64_t n :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, kMaxSafetensorsHeader,
        kMaxSafetensorsHeader + 1, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    std::string file = with_length("{}");
    for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(n >> (8 * i) & 255);
    EXPECT_EQ(code_of([&] { parse(file); }), ExitCode::bad_data) << n;
  }
}

TEST(Safetensors, EscapesInNamesAreDecoded) {
  const std::string json =
      "{\"\\u00e9\\ud83d\\ude00\\t\\/\" : {\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}  "
      " ";
  EXPECT_NE(parse(with_length(json, "x")).find("\u00e9\U0001F600\t/"), nullptr);
}

std::string slurp(const fs::path& path) {
  return read_text(path);
}

// One to four edits: flipped bits, other digits, cut, repeated or moved pieces, structural tokens.
std::string mutate(std::string s, const Random& random, std::uint64_t n) {
  static const std::vector<std::string> kTokens{"{",
                                                "}",
                                                "[",
                                                "]",
                                                ",",
                                                ":",
                                                "\"",
                                                "\\u",
                                                "0",
                                                "9",
                                                "18446744073709551615",
                                                "9223372036854775807",
                                                "-1",
                                                "1e9",
                                                "null",
                                                "__metadata__",
                                                "data_offsets",
                                                "\"F64\"",
                                                "\xFF",
                                                "[[[[[[[[",
                                                "{\"a\":{\"a\":{\"a\":"};
  std::uint64_t draw = n * 64;
  const auto below = [&](std::size_t bound) {
    return static_cast<std::size_t>(random.below(draw++, std::max<std::size_t>(bound, 1)));
  };
  for (std::size_t edits = 1 + below(4); edits > 0 && !s.empty(); --edits) {
    const std::size_t header =
        std::min<std::size_t>(s.size(), 1200);  // most edits where they matter
    const std::size_t at = below(below(8) == 0 ? s.size() : header);
    switch (below(7)) {
      case 0: s[at] = static_cast<char>(s[at] ^ (1 << below(8))); break;
      case 1: s[at] = static_cast<char>('0' + below(10)); break;
      case 2: s.erase(at, 1 + below(20)); break;
      case 3: s.insert(at, kTokens[below(kTokens.size())]); break;
      case 4: s.insert(at, s.substr(below(s.size()), 1 + below(60))); break;
      case 5: s.resize(at); break;
      default: s[below(8)] = static_cast<char>(below(256)); break;
    }
  }
  return s;
}

TEST(Safetensors, TenThousandMutationsAreReadOrRefusedNeverWorse) {
  const std::string good = slurp(fs::path(GRIST_TESTS_DIR) / "ckpt/golden/tiny.safetensors");
  const Random random(5, "mutations");
  int accepted = 0, refused = 0;
  for (std::uint64_t n = 0; n < 20000; ++n) {
    const std::string file = mutate(good, random, n);
    try {
      const SafetensorsHeader h = parse(file);
      ++accepted;  // then every byte belongs to exactly one tensor
      std::uint64_t next = h.entries.empty() ? file.size() : h.entries.front().begin;
      for (const SafetensorsEntry& e : h.entries) {
        ASSERT_EQ(e.begin, next);
        next = e.end;
      }
      ASSERT_EQ(next, file.size());
    } catch (const Error& e) {
      ++refused;
      ASSERT_EQ(e.code(), ExitCode::bad_data) << e.what();
      ASSERT_LT(std::strlen(e.what()), 3000U);
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 10000);
}

}  // namespace
}  // namespace grist::test
