#include "grist/data/bpe_trainer.h"

#include <gtest/gtest.h>

#include "grist/core/context.h"
#include "grist/core/error.h"
#include "grist/core/json.h"
#include "grist/data/tokenizer.h"
#include "parity_text.h"

namespace grist::test {
namespace {

constexpr int kDocuments = 100;  // as scripts/make_tokenizer_golden.py

TrainedTokenizer train(int threads, int vocab_size) {
  const ParityText text;
  const BpeTrainerOptions options{.vocab_size = vocab_size};
  ThreadPool pool(threads);
  WordCounter counter(options, pool.size());
  pool.run(kDocuments, [&](std::int64_t i, int worker) {
    counter.add(text.chunk(static_cast<std::uint64_t>(kDocuments - 1 - i)), worker);
  });
  return train_bpe(counter, options);
}

ExitCode error_code(const BpeTrainerOptions& options) {
  try {
    const WordCounter counter(options, 1);
    train_bpe(counter, options);
  } catch (const Error& e) {
    return e.code();
  }
  return ExitCode::ok;
}

TEST(BpeTrainer, WritesTheVeryFileThatTheOracleWrites) {
  const TrainedTokenizer trained = train(1, 1200);

  EXPECT_EQ(trained.vocab_size, 1200);
  EXPECT_TRUE(trained.json == read_text(golden_folder() / "small.json")) << "differs";
}

TEST(BpeTrainer, ResultDoesNotDependOnThreads) {
  EXPECT_TRUE(train(1, 700).json == train(4, 700).json);
}

TEST(BpeTrainer, SavedFolderLoadsAndNamesTheEndOfText) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "grist_bpe_trainer" / "tok";
  std::filesystem::remove_all(folder);
  BpeTrainerOptions options{.vocab_size = 300, .special_tokens = {"<end>", "<pad>"}};
  options.pattern = R"(\p{L}+|\s+|[^\p{L}\s]+)";
  WordCounter counter(options, 1);
  counter.add("aa ab aa ab aa ab abc abc\xFF", 0);
  save_tokenizer(train_bpe(counter, options), folder);

  const Tokenizer tokenizer = Tokenizer::load(folder);

  EXPECT_EQ(counter.replaced(), 1U);
  EXPECT_EQ(tokenizer.eos_id(), 0);
  const std::vector<std::int32_t> ids = Encoder(tokenizer).encode("ab<pad>aa");
  ASSERT_EQ(ids.size(), 3U);
  EXPECT_EQ(ids[1], 1);
  EXPECT_EQ(tokenizer.decode(std::span(&ids[0], 1)), "ab");
  EXPECT_EQ(tokenizer.decode(std::span(&ids[2], 1)), "aa");
  std::filesystem::remove_all(folder);
}

TEST(BpeTrainer, EqualCountsGoToTheSmallerIds) {
  const BpeTrainerOptions options{.vocab_size = 259};
  WordCounter counter(options, 1);
  for (int i = 0; i < 3; ++i) counter.add("cd", 0), counter.add("ab", 0), counter.add("xy", 0);

  const Json json = Json::parse(train_bpe(counter, options).json, "trained");

  const Json::Array& merges = json.at("model").at("merges").as_array();
  ASSERT_EQ(merges.size(), 2U);
  EXPECT_EQ(merges[0].dump(), R"(["a", "b"])");
  EXPECT_EQ(merges[1].dump(), R"(["c", "d"])");
}

TEST(BpeTrainer, StopsWhereNoPairIsFrequentEnough) {
  const BpeTrainerOptions options{.vocab_size = 1000, .min_frequency = 3};
  WordCounter counter(options, 1);
  counter.add("ab ab ab cd cd", 0);

  EXPECT_EQ(train_bpe(counter, options).vocab_size, 257 + 1);  // " ab" holds (a, b) twice: 3 in all
}

TEST(BpeTrainer, LongWordsTrainInTime) {
  const BpeTrainerOptions options{.vocab_size = 280};
  WordCounter counter(options, 1);
  counter.add(std::string(1 << 20, 'a'), 0);

  EXPECT_EQ(train_bpe(counter, options).vocab_size, 257 + 19);  // a^2 .. a^(2^19), each twice
}

TEST(BpeTrainer, RefusesOptionsThatCannotWork) {
  EXPECT_EQ(error_code({.vocab_size = 256}), ExitCode::usage);
  EXPECT_EQ(error_code({.vocab_size = 1000, .special_tokens = {"a"}}), ExitCode::usage);
  EXPECT_EQ(error_code({.vocab_size = 1000, .special_tokens = {""}}), ExitCode::usage);
  EXPECT_EQ(error_code({.vocab_size = 1000, .special_tokens = {"<a>", "<a>"}}), ExitCode::usage);
  EXPECT_EQ(error_code({.vocab_size = 1000, .special_tokens = {"\xFF\xFF"}}), ExitCode::usage);
  EXPECT_EQ(error_code({.vocab_size = 1000, .pattern = "(unclosed"}), ExitCode::bad_data);
  EXPECT_EQ(error_code({.vocab_size = 1000}), ExitCode::bad_data);  // no text
}

}  // namespace
}  // namespace grist::test
