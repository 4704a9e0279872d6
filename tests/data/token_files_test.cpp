// Joining and splitting token files: what was joined is what was written at once, parts put
// together are the whole.
#include "grist/data/token_files.h"

#include "data/support.h"
#include "grist/core/check.h"
#include "grist/core/random.h"

namespace grist {
namespace {

namespace fs = std::filesystem;
using test::Documents;
using test::TempDir;
using test::throws;

constexpr std::int64_t kVocab = 300;

Documents documents(int count, std::uint64_t seed) {
  const Random random(seed, "documents");
  Documents out(static_cast<std::size_t>(count));
  std::uint64_t at = 0;
  for (auto& d : out) {
    d.resize(random.below(at++, 40));
    for (std::int32_t& id : d) id = static_cast<std::int32_t>(random.below(at++, kVocab));
  }
  return out;
}

void write(const fs::path& prefix, const Documents& all, TokenFileInfo info) {
  TokenFileWriter writer(prefix, kVocab, false);
  for (const auto& d : all) writer.add_document(d);
  info.vocab_size = kVocab;
  writer.finish(std::move(info));
}

const TokenFileInfo kInfo{.tokenizer_hash = "0123", .bos_id = 1, .eod_id = 2, .source_bytes = 100};

TokenFilesOptions to(const fs::path& output) {
  return {.output = output, .progress = false};
}

void expect_same_tokens(const fs::path& a, const fs::path& b) {
  for (const char* end : {".bin", ".idx"})
    EXPECT_EQ(read_text(a.string() + end), read_text(b.string() + end)) << end;
}

TEST(TokenFiles, JoinedIsAsWrittenAtOnce) {
  const TempDir dir;
  const Documents a = documents(30, 1), b = documents(7, 2);
  Documents both = a;
  both.insert(both.end(), b.begin(), b.end());
  write(dir / "a", a, kInfo);
  write(dir / "b", b, kInfo);
  TokenFileInfo sum = kInfo;
  sum.source_bytes = 200;
  write(dir / "both", both, sum);

  const std::vector<fs::path> inputs = {dir / "a.idx", dir / "b"};
  const WrittenTokens written = join_token_files(inputs, to(dir / "joined.bin"));

  EXPECT_EQ(written.documents, 37);
  expect_same_tokens(dir / "joined", dir / "both");
  EXPECT_EQ(*TokenFile(dir / "joined").info(), *TokenFile(dir / "both").info());
}

TEST(TokenFiles, WhatWasMadeDifferentlyIsNotJoined) {
  const TempDir dir;
  write(dir / "a", documents(5, 1), kInfo);
  const std::vector<std::pair<const char*, TokenFileInfo>> others = {
      {"hash", {.tokenizer_hash = "4567", .bos_id = 1, .eod_id = 2}},
      {"bos", {.tokenizer_hash = "0123", .bos_id = -1, .eod_id = 2}},
      {"eod", {.tokenizer_hash = "0123", .bos_id = 1, .eod_id = 3}}};
  for (const auto& [name, info] : others) {
    write(dir / name, documents(5, 2), info);
    const std::vector<fs::path> inputs = {dir / "a", dir / name};
    EXPECT_TRUE(throws(ExitCode::bad_data, "made differently", [&] {
      join_token_files(inputs, to(dir / "out"));
    })) << name;
    EXPECT_FALSE(fs::exists(dir / "out.idx"));
  }
  const std::vector<fs::path> inputs = {dir / "a", dir / "hash"};
  EXPECT_TRUE(throws(ExitCode::usage, "choose another --output", [&] {
    join_token_files(inputs, {.output = dir / "a", .overwrite = true, .progress = false});
  }));
  EXPECT_EQ(TokenFile(dir / "a").num_documents(), 5);
}

TEST(TokenFiles, PartsPutTogetherAreTheWhole) {
  const TempDir dir;
  const Documents all = documents(101, 3);
  const auto full =
      static_cast<int>(std::ranges::count_if(all, [](auto& d) { return !d.empty(); }));
  ASSERT_LT(full, 101);
  write(dir / "whole", all, kInfo);
  for (const int parts : {1, 2, 7, full}) {
    const std::string name = "part" + std::to_string(parts);
    const auto written = split_token_file(dir / "whole", parts, to(dir / name));

    ASSERT_EQ(std::ssize(written), parts);
    std::vector<fs::path> inputs;
    for (const WrittenTokens& w : written) {
      inputs.push_back(w.prefix);
      EXPECT_EQ(TokenFile(w.prefix).info()->source_bytes, 0);
      if (parts == 7) {  // about as many tokens: a document too many or too few
        EXPECT_NEAR(static_cast<double>(w.tokens),
                    static_cast<double>(TokenFile(dir / "whole").num_tokens()) / 7, 40);
      }
    }
    EXPECT_EQ(inputs.front().filename(), fmt::format("{}-00000-of-{:05}", name, parts));
    join_token_files(inputs, to(dir / (name + "joined")));
    expect_same_tokens(dir / (name + "joined"), dir / "whole");
  }
  EXPECT_TRUE(throws(ExitCode::usage, "with tokens",
                     [&] { split_token_file(dir / "whole", full + 1, to(dir / "x")); }));
}

TEST(TokenFiles, EachDocumentIsHeldOutOrKept) {
  const TempDir dir;
  const Documents all = documents(400, 4);
  write(dir / "whole", all, kInfo);

  const auto written = hold_out_documents(dir / "whole", 0.25, 9, to(dir / "a"));
  hold_out_documents(dir / "whole", 0.25, 9, to(dir / "b"));
  hold_out_documents(dir / "whole", 0.25, 10, to(dir / "c"));

  EXPECT_EQ(written[0].prefix, dir / "a-train");
  EXPECT_EQ(written[1].prefix, dir / "a-validation");
  expect_same_tokens(dir / "a-train", dir / "b-train");
  expect_same_tokens(dir / "a-validation", dir / "b-validation");
  EXPECT_NE(read_text(dir / "a-validation.bin"), read_text(dir / "c-validation.bin"));
  const TokenFile train(dir / "a-train"), held(dir / "a-validation");
  EXPECT_EQ(train.num_documents() + held.num_documents(), 400);
  EXPECT_NEAR(static_cast<double>(held.num_documents()), 100, 40);  // 4.6 standard deviations
  Documents kept = test::read_documents(train, kVocab), out = test::read_documents(held, kVocab);
  std::size_t k = 0, o = 0;
  for (const auto& d : all) {  // both in the order of the whole
    if (k < kept.size() && kept[k] == d) {
      ++k;
    } else {
      ASSERT_LT(o, out.size());
      EXPECT_EQ(out[o++], d);
    }
  }
  EXPECT_TRUE(throws(ExitCode::usage, "choose another --held-out",
                     [&] { hold_out_documents(dir / "whole", 1e-9, 9, to(dir / "none")); }));
  EXPECT_FALSE(fs::exists(dir / "none-train.idx"));
}

TEST(TokenFiles, WithoutASidecarTheVocabularyMustBeSaid) {
  const TempDir dir;
  write(dir / "a", documents(5, 5), kInfo);
  fs::remove(dir / "a.json");
  const std::vector<fs::path> inputs = {dir / "a"};
  EXPECT_TRUE(
      throws(ExitCode::usage, "--vocab-size", [&] { join_token_files(inputs, to(dir / "b")); }));
  join_token_files(inputs, {.output = dir / "b", .vocab_size = kVocab, .progress = false});
  expect_same_tokens(dir / "a", dir / "b");
  EXPECT_TRUE(throws(ExitCode::bad_data, "id", [&] {
    join_token_files(inputs, {.output = dir / "c", .vocab_size = 3, .progress = false});
  }));
}

}  // namespace
}  // namespace grist
