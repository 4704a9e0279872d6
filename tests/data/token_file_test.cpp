// Token files: against files made by numpy, round trips, every kind of damage.
#include "grist/data/token_file.h"

#include <sys/file.h>

#include <algorithm>
#include <cstring>

#include "data/support.h"
#include "grist/core/random.h"

namespace grist {
namespace {

using test::Documents;
using test::TempDir;
using test::throws;

const std::string kGolden = std::string(GRIST_TESTS_DIR) + "/data/golden/";

// The rule of scripts/make_token_golden.py.
std::vector<std::int32_t> document(std::int32_t d, std::int32_t vocab) {
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < d * 7 % 13; ++i) ids.push_back((d * 1009 + i * 37 + 5) % vocab);
  return ids;
}

Documents documents(std::int32_t count, std::int32_t vocab) {
  Documents out;
  for (std::int32_t d = 0; d < count; ++d) out.push_back(document(d, vocab));
  return out;
}

TEST(TokenFile, WritesTheBytesThatNumpyWrites) {
  const TempDir dir;

  test::write_tokens(dir / "u16", documents(20, 65499), 65499);
  test::write_tokens(dir / "i32", documents(20, 65500), 65500);

  for (const char* name : {"u16.bin", "u16.idx", "i32.bin", "i32.idx"})
    EXPECT_EQ(read_text(dir / name), read_text(kGolden + name)) << name;
}

TEST(TokenFile, ReadsWhatNumpyWrote) {
  const TokenFile u16(kGolden + "u16");
  const TokenFile i32(kGolden + "i32.idx");
  const TokenFile grouped(kGolden + "grouped.bin");

  EXPECT_EQ(test::read_documents(u16, 65499), documents(20, 65499));
  EXPECT_EQ(test::read_documents(i32, 65500), documents(20, 65500));
  Documents want(4);
  const std::vector<std::vector<std::int32_t>> groups = {{1, 2}, {}, {3, 4, 5}, {6}};
  for (std::size_t g = 0; g < 4; ++g) {
    for (const std::int32_t d : groups[g]) {
      for (const std::int32_t id : document(d, 100)) want[g].push_back(id);
    }
  }
  EXPECT_EQ(test::read_documents(grouped, 100), want);
}

TEST(TokenFile, KeepsTheSidecar) {
  const TempDir dir;
  const TokenFileInfo info{
      .tokenizer_hash = "abc", .vocab_size = 300, .eod_id = 7, .source_bytes = 1234};
  test::write_tokens(dir / "t", documents(20, 300), 300, info);

  const TokenFile file(dir / "t");

  ASSERT_TRUE(file.info().has_value());
  TokenFileInfo want = info;
  want.documents = 20;
  want.tokens = file.num_tokens();
  EXPECT_EQ(*file.info(), want);
  EXPECT_NO_THROW(file.check_tokenizer("abc"));
  EXPECT_TRUE(throws(ExitCode::bad_data, "tokenizer", [&] { file.check_tokenizer("abd"); }));
  EXPECT_NO_THROW(TokenFile(kGolden + "u16").check_tokenizer("anything"));
}

TEST(TokenFile, RefusesASidecarOfAnotherFile) {
  const TempDir dir;
  test::write_tokens(dir / "t", documents(20, 300), 300);
  test::write_tokens(dir / "u", documents(19, 300), 300);
  std::filesystem::copy_file(dir / "u.json", dir / "t.json",
                             std::filesystem::copy_options::overwrite_existing);

  EXPECT_TRUE(throws(ExitCode::bad_data, "another file", [&] { TokenFile(dir / "t"); }));
}

TEST(TokenFile, ReadsOnlySidecarsItKnows) {
  const TempDir dir;
  test::write_tokens(dir / "t", documents(20, 300), 300);

  dir.write("t.json", R"({"format": "grist tokens", "version": 2})");
  EXPECT_TRUE(throws(ExitCode::bad_data, "version 2", [&] { TokenFile(dir / "t"); }));
  dir.write("t.json", R"({"format": "grist tokens", "version": 1})");
  EXPECT_TRUE(throws(ExitCode::bad_data, "tokenizer_hash", [&] { TokenFile(dir / "t"); }));
  dir.write("t.json", R"({"format": )");
  EXPECT_TRUE(throws(ExitCode::bad_data, "t.json", [&] { TokenFile(dir / "t"); }));
  dir.write("t.json", R"({"of": "somebody else"})");
  EXPECT_FALSE(TokenFile(dir / "t").info().has_value());
}

TEST(TokenFile, NamesAnIdBeyondTheVocabulary) {
  const TempDir dir;
  test::write_tokens(dir / "t", {{1, 2}, {3, 99, 4}}, 100);
  const TokenFile file(dir / "t");
  std::vector<std::int32_t> out(5);

  EXPECT_NO_THROW(file.read(0, out, 100));
  EXPECT_TRUE(throws(ExitCode::bad_data, "document 1, token 1 (byte 6): id 99",
                     [&] { file.read(0, out, 99); }));
}

TEST(TokenFile, NamesANegativeOrHugeId) {
  const TempDir dir;
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{1} << 32}) {
    std::string bin = read_text(kGolden + "grouped.bin");
    std::memcpy(bin.data() + 8, &bad, 8);
    dir.write("t.bin", bin);
    dir.write("t.idx", read_text(kGolden + "grouped.idx"));
    const TokenFile file(dir / "t");
    std::vector<std::int32_t> out(4);
    EXPECT_TRUE(throws(ExitCode::bad_data, "token 1", [&] { file.read(0, out, 100); }));
  }
}

// ---- damage ----------------------------------------------------------------------------------

struct Damage {
  const char* name;
  const char* message;
  void (*change)(std::string& idx, std::string& bin);
};

template <class T> void poke(std::string& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// 20 sequences: lengths at 34, offsets at 114, boundaries at 274, 442 bytes in all.
const Damage kDamages[] = {
    {"empty index", "too short", [](auto& i, auto&) { i.clear(); }},
    {"cut header", "too short", [](auto& i, auto&) { i.resize(33); }},
    {"foreign file", "magic", [](auto& i, auto&) { i = std::string(500, 'x'); }},
    {"magic", "magic", [](auto& i, auto&) { i[7] = 1; }},
    {"version", "version 2 at byte 9", [](auto& i, auto&) { poke(i, 9, std::uint64_t{2}); }},
    {"type 0", "type 0 at byte 17", [](auto& i, auto&) { i[17] = 0; }},
    {"type double", "type 6 at byte 17", [](auto& i, auto&) { i[17] = 6; }},
    {"wider type", "truncated", [](auto& i, auto&) { i[17] = 4; }},
    {"narrower type", "of another index", [](auto& i, auto&) { i[17] = 1; }},
    {"sequences overflow", "byte 18", [](auto& i, auto&) { poke(i, 18, ~std::uint64_t{0} / 4); }},
    {"sequences one more", "", [](auto& i, auto&) { poke(i, 18, std::uint64_t{21}); }},
    {"boundaries 0", "byte 26", [](auto& i, auto&) { poke(i, 26, std::uint64_t{0}); }},
    {"boundaries overflow", "byte 26",
     [](auto& i, auto&) { poke(i, 26, ~std::uint64_t{0} / 8 + 2); }},
    {"boundaries one less", "after the last field",
     [](auto& i, auto&) { poke(i, 26, std::uint64_t{20}); }},
    {"negative length", "length -1 at byte 38", [](auto& i, auto&) { poke(i, 38, -1); }},
    {"long length", "ends at token", [](auto& i, auto&) { poke(i, 38, 0x7fffffff); }},
    {"offset", "at byte 130", [](auto& i, auto&) { poke(i, 130, std::int64_t{1} << 40); }},
    {"negative offset", "at byte 122", [](auto& i, auto&) { poke(i, 122, std::int64_t{-2}); }},
    {"first boundary", "boundary 0", [](auto& i, auto&) { poke(i, 274, std::int64_t{1}); }},
    {"falling boundary", "boundary 3", [](auto& i, auto&) { poke(i, 298, std::int64_t{1}); }},
    {"boundary beyond", "boundary 4", [](auto& i, auto&) { poke(i, 306, std::int64_t{21}); }},
    {"last boundary", "boundary 20", [](auto& i, auto&) { poke(i, 434, std::int64_t{19}); }},
    {"cut index", "do not fit", [](auto& i, auto&) { i.resize(441); }},
    {"bytes behind", "after the last field", [](auto& i, auto&) { i += "?"; }},
    {"multimodal", "multimodal", [](auto& i, auto&) { i.append(20, '\0'); }},
    {"cut tokens", "truncated", [](auto&, auto& b) { b.resize(b.size() - 2); }},
    {"odd bytes", "of another index", [](auto&, auto& b) { b += "?"; }},
    {"more tokens", "of another index", [](auto&, auto& b) { b += "??"; }},
    {"empty tokens", "truncated", [](auto&, auto& b) { b.clear(); }},
};

TEST(TokenFile, EveryDamageIsNamed) {
  const TempDir dir;
  for (const Damage& damage : kDamages) {
    std::string idx = read_text(kGolden + "u16.idx");
    std::string bin = read_text(kGolden + "u16.bin");
    ASSERT_EQ(idx.size(), 442U);
    damage.change(idx, bin);
    dir.write("t.idx", idx);
    dir.write("t.bin", bin);
    EXPECT_TRUE(throws(ExitCode::bad_data, damage.message, [&] { TokenFile(dir / "t"); }))
        << damage.name;
    EXPECT_TRUE(throws(ExitCode::bad_data, dir / "t", [&] { TokenFile(dir / "t"); }))
        << damage.name;
  }
}

TEST(TokenFile, MissingFilesAreNotFound) {
  const TempDir dir;
  EXPECT_TRUE(throws(ExitCode::not_found, "t.bin", [&] { TokenFile(dir / "t"); }));
  dir.write("t.bin", "ab");
  EXPECT_TRUE(throws(ExitCode::not_found, "t.idx", [&] { TokenFile(dir / "t"); }));
}

TEST(TokenFile, AnyChangedByteIsRefusedOrHarmless) {
  const TempDir dir;
  const std::string good = read_text(kGolden + "u16.idx");
  dir.write("t.bin", read_text(kGolden + "u16.bin"));
  const Random random(1, "mutations");
  int refused = 0;
  for (std::uint64_t round = 0; round < 10000; ++round) {
    std::string idx = good;
    const std::uint64_t changes = 1 + random.below(8 * round, 3);
    for (std::uint64_t c = 0; c < changes; ++c) {
      const std::size_t at = random.below(8 * round + 1 + c, idx.size());
      idx[at] = static_cast<char>(random.bits(8 * round + 5 + c));
    }
    if (random.below(8 * round + 4, 10) == 0) idx.resize(idx.size() - idx.size() / 3);
    dir.write("t.idx", idx);
    try {
      const TokenFile file(dir / "t");
      EXPECT_EQ(file.num_tokens(), 108);
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ExitCode::bad_data) << e.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 8000);
}

// ---- writing ---------------------------------------------------------------------------------

TEST(TokenFileWriter, LeavesNothingWhenItDoesNotFinish) {
  const TempDir dir;
  {
    TokenFileWriter writer(dir / "t", 100, false);
    writer.add_document(std::vector<std::int32_t>{1, 2, 3});
  }
  EXPECT_EQ(dir.names(), std::vector<std::string>{});
}

TEST(TokenFileWriter, RefusesToReplaceUnlessAsked) {
  const TempDir dir;
  test::write_tokens(dir / "t", {{1, 2}}, 100);

  EXPECT_TRUE(throws(ExitCode::cannot_create, "--overwrite",
                     [&] { TokenFileWriter(dir / "t", 100, false); }));
  {
    TokenFileWriter unfinished(dir / "t", 100, true);
    unfinished.add_document(std::vector<std::int32_t>{9});
  }
  EXPECT_EQ(test::read_documents(TokenFile(dir / "t"), 100), (Documents{{1, 2}}));
  test::write_tokens(dir / "t", {{5}}, 100);
  EXPECT_EQ(test::read_documents(TokenFile(dir / "t"), 100), (Documents{{5}}));
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"t.bin", "t.idx", "t.json"}));
}

TEST(TokenFileWriter, TwoAtOnceAreRefused) {
  const TempDir dir;
  TokenFileWriter first(dir / "t", 100, false);
  first.add_document(std::vector<std::int32_t>{1, 2, 3});

  EXPECT_TRUE(throws(ExitCode::cannot_create, "another process",
                     [&] { TokenFileWriter(dir / "t", 100, false); }));

  first.finish();
  EXPECT_EQ(TokenFile(dir / "t").num_tokens(), 3);
}

TEST(TokenFileWriter, RefusesAnEmptyOutput) {
  const TempDir dir;
  EXPECT_TRUE(throws(ExitCode::bad_data, "no tokens",
                     [&] { TokenFileWriter(dir / "t", 100, false).finish(); }));
  EXPECT_EQ(dir.names(), std::vector<std::string>{});
}

TEST(TokenFileWriter, StartsOverWhereACrashLeftParts) {
  const TempDir dir;
  dir.write("t.bin.partial", "left behind");
  dir.write("t.idx.partial", "left behind");

  test::write_tokens(dir / "t", {{1, 2}}, 100);

  EXPECT_EQ(test::read_documents(TokenFile(dir / "t"), 100), (Documents{{1, 2}}));
}

// ---- fingerprints ----------------------------------------------------------------------------

TEST(Fingerprint, IsOfTheContentNotThePlace) {
  const TempDir dir;
  test::write_tokens(dir / "a", documents(20, 300), 300);
  test::write_tokens(dir / "b", documents(20, 300), 300);

  EXPECT_EQ(TokenFile(dir / "a").fingerprint(), TokenFile(dir / "b").fingerprint());
}

TEST(Fingerprint, ChangesWithAnyTokenOfASmallFileAndWithAnyLength) {
  const TempDir dir;
  const Documents before = {{1, 2, 3}, {4, 5}};
  test::write_tokens(dir / "a", before, 300);
  const std::string first = TokenFile(dir / "a").fingerprint();

  for (const Documents& after : {Documents{{1, 2, 3}, {4, 6}}, Documents{{1, 2}, {3, 4, 5}},
                                 Documents{{1, 2, 3}, {4, 5}, {}}}) {
    test::write_tokens(dir / "a", after, 300);
    EXPECT_NE(TokenFile(dir / "a").fingerprint(), first);
  }
}

TEST(Fingerprint, SamplesALargeFileFromFirstToLastByte) {
  const TempDir dir;
  constexpr std::size_t kTokens = 9 * 1024 * 1024;  // 18 MiB: more than is hashed whole
  Documents one(1);
  one[0].assign(kTokens, 7);
  test::write_tokens(dir / "a", one, 300);
  const std::string before = TokenFile(dir / "a").fingerprint();

  for (const std::size_t at : {std::size_t{0}, kTokens - 1}) {
    one[0][at] = 8;
    test::write_tokens(dir / "b", one, 300);
    EXPECT_NE(TokenFile(dir / "b").fingerprint(), before) << at;
    one[0][at] = 7;
  }
}

}  // namespace
}  // namespace grist
