#include "grist/data/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "grist/core/error.h"
#include "grist/core/json.h"
#include "parity_text.h"
#include "support/scale.h"

namespace grist::test {
namespace {

using Ids = std::vector<std::int32_t>;

std::string small_text() {
  return read_text(golden_folder() / "small.json");
}
Json small_json() {
  return Json::parse(small_text(), "small.json");
}
Tokenizer small() {
  return Tokenizer::parse(small_text(), "small.json");
}

// small.json with one member of the object at `path` replaced ("model.dropout", "0.1").
std::string with(const std::string& path, const std::string& value) {
  Json j = small_json();
  const std::size_t dot = path.find('.');
  const Json v = Json::parse(value, "value");
  if (dot == std::string::npos) {
    j.set(path, v);
  } else {
    Json inner = j.at(path.substr(0, dot));
    inner.set(path.substr(dot + 1), v);
    j.set(path.substr(0, dot), std::move(inner));
  }
  return j.dump();
}

std::string added(const std::string& fields) {
  return with("added_tokens",
              R"([{"id": 0, "content": "<|endoftext|>", "normalized": false, "special": true}, )" +
                  fields + "]");
}

TEST(Tokenizer, EncodesAndDecodesItsOwnTokens) {
  const Tokenizer tokenizer = small();
  Encoder encoder(tokenizer);

  EXPECT_EQ(tokenizer.vocab_size(), 1200);
  EXPECT_EQ(tokenizer.eos_id(), 0);
  EXPECT_EQ(encoder.encode(""), Ids{});
  EXPECT_EQ(encoder.encode("!"), Ids{1});
  const Ids the = encoder.encode(" the");
  EXPECT_EQ(the.size(), 1U);
  EXPECT_EQ(encoder.encode("!<|endoftext|>!"), (Ids{1, 0, 1}));
  EXPECT_EQ(tokenizer.decode(Ids{1, 0, the.front()}), "!<|endoftext|> the");
}

TEST(Tokenizer, EncodeAppends) {
  const Tokenizer tokenizer = small();
  Encoder encoder(tokenizer);
  Ids ids = {7};

  encoder.encode("!", ids);

  EXPECT_EQ(ids, (Ids{7, 1}));
}

TEST(Tokenizer, SpecialTokensCanBePlainText) {
  const Tokenizer tokenizer = small();
  Encoder as_tokens(tokenizer);
  Encoder as_text(tokenizer, {.special_as_text = true});

  const Ids ids = as_text.encode("a<|endoftext|>b");

  EXPECT_EQ(as_tokens.encode("a<|endoftext|>b").size(), 3U);
  EXPECT_GT(ids.size(), 3U);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 0), 0);
  EXPECT_EQ(tokenizer.decode(ids), "a<|endoftext|>b");
}

TEST(Tokenizer, DecodeGivesBackTheTextWithReplacementsForBadBytes) {
  const Tokenizer tokenizer = small();
  Encoder encoder(tokenizer);
  Lcg r(11);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string bytes;
    for (std::uint32_t n = r.below(40); n > 0; --n)
      bytes += static_cast<char>(r.below(r.below(2) == 0 ? 128 : 256));
    const std::uint64_t before = encoder.replaced();
    const std::string back = tokenizer.decode(encoder.encode(bytes));
    if (encoder.replaced() == before)
      EXPECT_EQ(back, bytes);
    else
      EXPECT_NE(back.find("\uFFFD"), std::string::npos);
  }
  EXPECT_GT(encoder.replaced(), 0U);
  EXPECT_EQ(tokenizer.decode(encoder.encode("a\xF0\x9F\x98z")), "a\uFFFDz");
}

TEST(Tokenizer, DecodeRefusesIdsOutsideTheVocabulary) {
  const Tokenizer tokenizer = small();
  for (const std::int32_t id : {-1, 1200, INT32_MAX})
    EXPECT_THROW(tokenizer.decode(Ids{id}), Error) << id;
}

TEST(Tokenizer, AddedTokensAreLeftmostThenLongest) {
  const Tokenizer tokenizer =
      Tokenizer::parse(added(R"({"id": 1200, "content": "<a", "normalized": false},
               {"id": 1201, "content": "<a>", "normalized": false},
               {"id": 1202, "content": "a>bc", "normalized": false})"),
                       "t");
  Encoder encoder(tokenizer);
  EXPECT_EQ(encoder.encode("<a>"), Ids{1201});
  EXPECT_EQ(encoder.encode("<a<a"), (Ids{1200, 1200}));
  EXPECT_EQ(encoder.encode("<a>bc").front(), 1201);
  EXPECT_EQ(encoder.encode("a>bc"), Ids{1202});
  EXPECT_EQ(tokenizer.decode(Ids{1200, 1202}), "<aa>bc");
}

TEST(Tokenizer, EosComesFromTheConfigBeside) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "grist_tokenizer_eos";
  make_directories(folder);
  write_text_atomically(folder / "tokenizer.json", small_text());
  const auto eos_with = [&](const char* config) {
    write_text_atomically(folder / "tokenizer_config.json", config);
    return Tokenizer::load(folder).eos_id();
  };

  EXPECT_EQ(eos_with(R"({"eos_token": "!"})"), 1);
  EXPECT_EQ(eos_with(R"({"eos_token": {"content": "!"}})"), 1);
  EXPECT_EQ(eos_with(R"({"eos_token": null})"), 0);
  EXPECT_EQ(eos_with("{}"), 0);
  EXPECT_THROW(eos_with(R"({"eos_token": "no such token"})"), Error);
  EXPECT_THROW(eos_with(R"({"eos_token": 3})"), Error);
  EXPECT_THROW(eos_with("{"), Error);
  std::filesystem::remove_all(folder);
}

TEST(Tokenizer, MissingFileIsNotFound) {
  try {
    Tokenizer::load("/nonexistent/tokenizer.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::not_found);
  }
}

TEST(Tokenizer, HashChangesWithEverythingThatDecidesIds) {
  const std::uint64_t base = small().hash();
  const auto hash = [](const std::string& json) { return Tokenizer::parse(json, "t").hash(); };
  EXPECT_EQ(hash(small_json().dump()), base);  // layout does not matter
  EXPECT_EQ(hash(with("model.unk_token", R"("<|endoftext|>")")), base);
  EXPECT_NE(hash(with("model.ignore_merges", "true")), base);
  EXPECT_NE(hash(with("pre_tokenizer.add_prefix_space", "true")), base);
  EXPECT_NE(hash(with("pre_tokenizer.use_regex", "false")), base);
  EXPECT_NE(hash(with("normalizer", R"({"type": "NFC"})")), base);
  EXPECT_NE(hash(added(R"({"id": 1200, "content": "<x>", "normalized": false})")), base);
  Json j = small_json();
  Json model = j.at("model");
  Json merges = model.at("merges");
  std::swap(merges.as_array()[0], merges.as_array()[1]);
  model.set("merges", merges);
  j.set("model", model);
  EXPECT_NE(hash(j.dump()), base);
}

TEST(Tokenizer, OneMegabyteOfOneLetterIsFast) {
  const Tokenizer tokenizer = small();
  Encoder encoder(tokenizer);
  const std::string text((1 << 20) / test::kStride, 'a');
  const auto start = std::chrono::steady_clock::now();

  const Ids ids = encoder.encode(text);

  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(tokenizer.decode(ids), text);
  EXPECT_LT(seconds.count(), 20.0) << "quadratic would take minutes";
}

TEST(Tokenizer, ThreadsWithTheirOwnEncodersAgree) {
  const Tokenizer tokenizer = small();
  const ParityText text;
  std::string all;
  for (std::uint64_t i = 0; i < 20; ++i) all += text.chunk(i);
  const Ids want = Encoder(tokenizer).encode(all);
  std::vector<Ids> got(4);
  std::vector<std::thread> threads;
  for (Ids& ids : got) threads.emplace_back([&] { ids = Encoder(tokenizer).encode(all); });
  for (std::thread& t : threads) t.join();
  for (const Ids& ids : got) EXPECT_EQ(ids, want);
}

TEST(Tokenizer, CacheEvictionNeverChangesIds) {
  const Tokenizer tokenizer = small();
  Encoder warm(tokenizer);
  Lcg r(5);
  for (int i = 0; i < 300000; ++i) {  // far more pieces than the cache holds
    std::string word;
    for (std::uint32_t n = 1 + r.below(14); n > 0; --n)
      word += static_cast<char>('a' + r.below(26));
    const Ids ids = warm.encode(word);
    if (i % 1000 == 0) {
      ASSERT_EQ(ids, Encoder(tokenizer).encode(word)) << word;
    }
  }
}

struct BadFile {
  const char* path;   // member to replace
  const char* value;  // with this
  const char* says;   // the error's text has this
};

constexpr BadFile kBadFiles[] = {
    {"model.type", R"("WordPiece")", "model.type"},
    {"model.dropout", "0.1", "model.dropout"},
    {"model.continuing_subword_prefix", R"("##")", "model.continuing_subword_prefix"},
    {"model.end_of_word_suffix", R"("</w>")", "model.end_of_word_suffix"},
    {"model.byte_fallback", "true", "model.byte_fallback"},
    {"model.byte_fallback", "3", "model.byte_fallback: must be true or false"},
    {"model.vocab", "null", "model.vocab"},
    {"model.vocab", "{}", "model.vocab"},
    {"model.vocab", R"({"a": 0, "b": 0})", "is also the id of"},
    {"model.vocab", R"({"a": -1})", "model.vocab[\"a\"]"},
    {"model.vocab", R"({"a": 1.5})", "model.vocab[\"a\"]"},
    {"model.vocab", R"({"a": 9000000})", "far beyond"},
    {"model.vocab", R"({"": 0})", "must not be empty"},
    {"model.vocab", R"({"a": 0})", "model.merges[0]"},
    {"model.merges", "7", "model.merges"},
    {"model.merges", R"(["a b c"])", "model.merges[0]"},
    {"model.merges", R"(["ab"])", "model.merges[0]"},
    {"model.merges", R"([["a"]])", "model.merges[0]"},
    {"model.merges", R"([["a", "\u6c34"]])", "is not in model.vocab"},
    {"model.merges", R"([["q", "\u0137"]])", "is not in model.vocab"},
    {"model.merges", R"([["a", 1]])", "model.merges[0][1]"},
    {"model", "null", "model"},
    {"truncation", R"({"max_length": 512})", "truncation"},
    {"padding", R"({"strategy": "BatchLongest"})", "padding"},
    {"normalizer", R"({"type": "NFKC"})", "normalizer.type: \"NFKC\""},
    {"normalizer", R"({"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})",
     "normalizer.normalizers[0].type"},
    {"pre_tokenizer", "null", "pre_tokenizer"},
    {"pre_tokenizer", R"({"type": "Whitespace"})", "pre_tokenizer"},
    {"pre_tokenizer", R"({"type": "Sequence", "pretokenizers": []})", "pretokenizers"},
    {"pre_tokenizer",
     R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "ByteLevel"}]})",
     "pretokenizers[0]"},
    {"pre_tokenizer",
     R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "("},
         "behavior": "Isolated", "invert": false}, {"type": "ByteLevel"}]})",
     "not a valid pattern"},
    {"pre_tokenizer",
     R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "a"},
         "behavior": "Removed", "invert": false}, {"type": "ByteLevel"}]})",
     "behavior"},
    {"post_processor", R"({"type": "RobertaProcessing"})", "post_processor.type"},
    {"decoder", "null", "decoder"},
    {"decoder", R"({"type": "Metaspace"})", "decoder.type"},
    {"added_tokens", "3", "added_tokens"},
    {"added_tokens", "[3]", "added_tokens[0]"},
    {"added_tokens", R"([{"id": 0, "content": ""}])", "added_tokens[0].content"},
    {"added_tokens", R"([{"id": 5, "content": "<|endoftext|>"}])", "added_tokens[0].id"},
    {"added_tokens", R"([{"id": 5, "content": "<x>"}])", "added_tokens[0].id"},
    {"added_tokens", R"([{"id": 1300, "content": "<x>"}])", "added_tokens[0].id"},
    {"added_tokens", R"([{"id": 1200, "content": "<x>"}, {"id": 1201, "content": "<x>"}])",
     "already added"},
};

TEST(Tokenizer, RefusesWhatItCannotHonourByFieldName) {
  for (const BadFile& bad : kBadFiles) {
    try {
      Tokenizer::parse(with(bad.path, bad.value), "dir/tokenizer.json");
      ADD_FAILURE() << bad.path << " = " << bad.value << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::bad_data) << bad.path;
      EXPECT_TRUE(std::string_view(e.what()).starts_with("dir/tokenizer.json: ")) << e.what();
      EXPECT_NE(std::string_view(e.what()).find(bad.says), std::string_view::npos) << e.what();
    }
  }
}

TEST(Tokenizer, RefusesVocabulariesThatLackAByte) {
  Json j = small_json();
  Json model = j.at("model");
  Json vocab = Json::object();
  for (const auto& [token, id] : model.at("vocab").as_object())
    if (token != "!") vocab.set(token, id);
  model.set("vocab", vocab);
  model.set("merges", Json::array());
  j.set("model", model);
  try {
    Tokenizer::parse(j.dump(), "t");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string_view(e.what()).find("byte 0x21"), std::string_view::npos) << e.what();
  }
}

TEST(Tokenizer, AcceptsPostProcessorsThatOnlyAddTokensAround) {
  const Tokenizer tokenizer =
      Tokenizer::parse(with("post_processor",
                            R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
                                                      {"type": "TemplateProcessing"}]})"),
                       "t");
  EXPECT_EQ(Encoder(tokenizer).encode("!"), Ids{1});
}

TEST(TokenizerFuzz, MutatedFilesAreReadOrRefusedNeverWorse) {
  const std::string good = small_text();
  Lcg r(99);
  int refused = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::string bad = good;
    if (trial % 10 == 0) {
      bad.resize(r.below(bad.size()));
    } else {
      // Most of the file is vocabulary; aim half of the blows at the fields before it.
      const std::size_t range = r.below(2) == 0 ? 1200 : bad.size();
      for (std::uint32_t n = 1 + r.below(3); n > 0; --n)
        bad[r.below(range)] = static_cast<char>(r.below(256));
    }
    try {
      const Tokenizer tokenizer = Tokenizer::parse(bad, "fuzz");
      Encoder encoder(tokenizer);
      const Ids ids = encoder.encode("The miller's wheel <|endoftext|> 水 123");
      for (const std::int32_t id : ids) ASSERT_LT(id, tokenizer.vocab_size());
      tokenizer.decode(ids);
    } catch (const Error& e) {
      ASSERT_EQ(e.code(), ExitCode::bad_data) << e.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 150);
}

}  // namespace
}  // namespace grist::test
