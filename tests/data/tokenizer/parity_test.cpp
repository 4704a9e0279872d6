// Ids equal to those of PyPI tokenizers, over generated text whose hashes are in
// tests/golden/tokenizer/parity.txt.
#include <gtest/gtest.h>

#include <cinttypes>
#include <cstdio>
#include <map>

#include "grist/core/json.h"
#include "grist/data/tokenizer.h"
#include "parity_text.h"

namespace grist::test {
namespace {

struct Golden {
  int chunk = 0;
  std::uint64_t text_hash = 0;
  std::size_t count = 0;
  std::uint64_t ids_hash = 0;
};

std::map<std::string, std::vector<Golden>> read_goldens() {
  std::map<std::string, std::vector<Golden>> all;
  const std::string text = read_text(golden_folder() / "parity.txt");
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with('#')) continue;
    char name[32] = {};
    Golden g;
    const int fields = std::sscanf(line.c_str(), "%31s %d %" SCNx64 " %zu %" SCNx64, name, &g.chunk,
                                   &g.text_hash, &g.count, &g.ids_hash);
    EXPECT_EQ(fields, 5) << line;
    all[name].push_back(g);
  }
  return all;
}

void expect_parity(const Tokenizer& tokenizer, const std::vector<Golden>& goldens) {
  ASSERT_FALSE(goldens.empty());
  const ParityText text;
  Encoder encoder(tokenizer);
  int wrong = 0;
  for (const Golden& g : goldens) {
    const std::string chunk = text.chunk(static_cast<std::uint64_t>(g.chunk));
    ASSERT_EQ(fnv(chunk), g.text_hash) << "chunk " << g.chunk << " is not the script's text";
    const std::vector<std::int32_t> ids = encoder.encode(chunk);
    EXPECT_EQ(ids.size(), g.count) << "chunk " << g.chunk;
    EXPECT_EQ(fnv(ids), g.ids_hash) << "chunk " << g.chunk;
    if (fnv(ids) != g.ids_hash && ++wrong == 5) break;  // enough to see
  }
  EXPECT_GT(encoder.replaced(), 100U) << "the text should hold malformed UTF-8";
}

Json parse_json(const std::string& text) {
  return Json::parse(text, "literal");
}

// small.json as the script's variants() has it.
std::string variant(const std::string& name, bool old_merges) {
  Json j = Json::parse(read_text(golden_folder() / "small.json"), "small.json");
  static constexpr const char* kLlama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3})"
      R"(| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)";
  const auto split = [](const std::string& pattern) {
    return R"({"type": "Split", "pattern": )" + pattern +
           R"(, "behavior": "Isolated", "invert": false}, )";
  };
  const auto sequence = [](const std::string& splits, const std::string& prefix,
                           const std::string& regex) {
    return R"({"type": "Sequence", "pretokenizers": [)" + splits +
           R"({"type": "ByteLevel", "add_prefix_space": )" + prefix +
           R"(, "trim_offsets": true, "use_regex": )" + regex + "}]}";
  };
  std::string llama3 = kLlama3;
  std::string stage = sequence("", "false", "true");
  if (name == "prefix") stage = sequence("", "true", "true");
  if (name == "qwen2" || name == "nfc") llama3.erase(llama3.find("{1,3}"), 5);
  if (name == "llama3" || name == "qwen2" || name == "nfc")
    stage = sequence(split(R"({"Regex": ")" + llama3 + R"("})"), "false", "false");
  if (name == "literal")
    stage = sequence(split(R"({"String": "'s"})") + split(R"({"Regex": "[A-Z]+(?=[a-z])|\\s+"})"),
                     "true", "true");
  j.set("pre_tokenizer", parse_json(stage));
  if (name == "nfc") j.set("normalizer", parse_json(R"({"type": "NFC"})"));
  Json model = j.at("model");
  model.set("ignore_merges", name == "llama3");
  if (old_merges) {
    Json merges = Json::array();
    for (const Json& m : model.at("merges").as_array())
      merges.push_back(m.as_array()[0].as_string() + " " + m.as_array()[1].as_string());
    model.set("merges", std::move(merges));
  }
  j.set("model", std::move(model));
  if (name != "plain") {
    Json added = j.at("added_tokens");
    std::int64_t id = 1200;
    for (const char* flags :
         {R"({"content": " été", "normalized": true})",
          R"({"content": "zq-x", "normalized": true, "single_word": true})",
          R"({"content": "<x>", "normalized": false, "lstrip": true, "special": true})",
          R"({"content": "<x>y", "normalized": false, "rstrip": true, "special": true})",
          R"({"content": "~'~", "normalized": false, "lstrip": true, "rstrip": true})"}) {
      Json token = parse_json(flags);
      token.set("id", id++);
      added.push_back(std::move(token));
    }
    j.set("added_tokens", std::move(added));
  }
  return j.dump();
}

TEST(TokenizerParity, Gpt2IdsEqualTheOracleOnMoreThanOneMegabyte) {
  const auto file = gpt2_file();
  if (!file) GTEST_SKIP() << "GPT-2's tokenizer.json is not here; set GRIST_TEST_DATA";
  const Tokenizer tokenizer = Tokenizer::load(*file);
  EXPECT_EQ(tokenizer.vocab_size(), 50257);
  EXPECT_EQ(tokenizer.eos_id(), 50256);
  const std::vector<Golden> goldens = read_goldens()["gpt2"];
  EXPECT_GE(goldens.size() * 4096, 1U << 20U);
  expect_parity(tokenizer, goldens);
}

class SmallParity : public ::testing::TestWithParam<const char*> {};

TEST_P(SmallParity, IdsEqualTheOracleInBothEncodingsOfMerges) {
  const std::vector<Golden> goldens = read_goldens()[GetParam()];
  const Tokenizer pairs = Tokenizer::parse(variant(GetParam(), false), "pairs");
  const Tokenizer strings = Tokenizer::parse(variant(GetParam(), true), "strings");
  expect_parity(pairs, goldens);
  expect_parity(strings, goldens);
  EXPECT_EQ(pairs.hash(), strings.hash());
}

INSTANTIATE_TEST_SUITE_P(Variants, SmallParity,
                         ::testing::Values("plain", "prefix", "llama3", "qwen2", "literal", "nfc"),
                         [](const auto& c) { return std::string(c.param); });

}  // namespace
}  // namespace grist::test
