#include "grist/data/bpe_trainer.h"

#include <algorithm>
#include <array>

#include "bpe_merges.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/json.h"
#include "grist/core/log.h"
#include "grist/core/progress.h"
#include "grist/core/stop.h"

namespace grist {

namespace {

Json byte_level(bool add_prefix_space, bool use_regex) {
  Json j = Json::object();
  j.set("type", "ByteLevel");
  j.set("add_prefix_space", add_prefix_space);
  j.set("trim_offsets", true);
  j.set("use_regex", use_regex);
  return j;
}

Json pre_tokenizer(const std::string& pattern) {
  if (pattern.empty() || pattern == kGpt2Pattern) return byte_level(false, true);
  Json regex = Json::object();
  regex.set("Regex", pattern);
  Json split = Json::object();
  split.set("type", "Split");
  split.set("pattern", std::move(regex));
  split.set("behavior", "Isolated");
  split.set("invert", false);
  Json list = Json::array();
  list.push_back(std::move(split));
  list.push_back(byte_level(false, false));
  Json j = Json::object();
  j.set("type", "Sequence");
  j.set("pretokenizers", std::move(list));
  return j;
}

Json added_tokens(const std::vector<std::string>& special) {
  Json list = Json::array();
  for (std::size_t i = 0; i < special.size(); ++i) {
    Json t = Json::object();
    t.set("id", static_cast<std::int64_t>(i));
    t.set("content", special[i]);
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) t.set(flag, false);
    t.set("special", true);
    list.push_back(std::move(t));
  }
  return list;
}

Json model(const std::vector<std::string>& spelling, const std::vector<Merge>& merges) {
  Json vocab = Json::object();
  for (std::size_t i = 0; i < spelling.size(); ++i)  // not set(): it searches
    vocab.as_object().emplace_back(spelling[i], static_cast<std::int64_t>(i));
  Json list = Json::array();
  for (const Merge& m : merges) {
    Json pair = Json::array();
    pair.push_back(spelling[m.left]);
    pair.push_back(spelling[m.right]);
    list.push_back(std::move(pair));
  }
  Json j = Json::object();
  j.set("type", "BPE");
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"})
    j.set(key, Json());
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) j.set(key, false);
  j.set("vocab", std::move(vocab));
  j.set("merges", std::move(list));
  return j;
}

// What transformers reads beside tokenizer.json; the generic class does exactly what the file says.
Json config(const std::vector<std::string>& special) {
  Json j = Json::object();
  j.set("tokenizer_class", "PreTrainedTokenizerFast");
  j.set("add_prefix_space", false);
  j.set("clean_up_tokenization_spaces", false);
  if (!special.empty()) {
    j.set("bos_token", special.front());
    j.set("eos_token", special.front());
  }
  return j;
}

Json document(const BpeTrainerOptions& options, const MergeLearner& learner) {
  Json j = Json::object();
  j.set("version", "1.0");
  j.set("truncation", Json());
  j.set("padding", Json());
  j.set("added_tokens", added_tokens(options.special_tokens));
  j.set("normalizer", Json());
  j.set("pre_tokenizer", pre_tokenizer(options.pattern));
  j.set("post_processor", Json());
  j.set("decoder", byte_level(true, true));
  j.set("model", model(learner.spelling(), learner.merges()));
  return j;
}

}  // namespace

TrainedTokenizer train_bpe(const WordCounter& counter, const BpeTrainerOptions& options) {
  const std::vector<WordCounter::Word> words = counter.words();
  if (words.empty()) fail(ExitCode::bad_data, "the input holds no text to learn a vocabulary from");
  // Special tokens first, then the bytes in the order of the characters that spell them.
  const unicode::ByteAlphabet alphabet;
  std::vector<std::string> spelling = options.special_tokens;
  std::vector<std::pair<char32_t, std::uint8_t>> bytes;
  for (std::size_t b = 0; b < 256; ++b) {
    const auto byte = static_cast<std::uint8_t>(b);
    bytes.emplace_back(alphabet.character(byte), byte);
  }
  std::sort(bytes.begin(), bytes.end());
  std::array<std::int32_t, 256> byte_ids{};
  for (const auto& [character, byte] : bytes) {
    byte_ids[byte] = static_cast<std::int32_t>(spelling.size());
    unicode::append_utf8(spelling.emplace_back(), character);
  }

  MergeLearner learner(words, std::move(spelling), byte_ids);
  const auto target = static_cast<std::size_t>(options.vocab_size);
  Progress progress("training tokenizer", target, "tokens");
  learner.learn(target, options.min_frequency, [&progress](std::size_t done) {
    if (stop_signal() != 0)
      fail(ExitCode::preempted, "stopped by a signal before the vocabulary was complete");
    progress.update(done);
  });
  progress.finish(learner.spelling().size());
  if (learner.spelling().size() < target)
    log::warn("the text has pairs for {} tokens only, not {}: a pair must occur {} times",
              learner.spelling().size(), target, options.min_frequency);
  return {.json = document(options, learner).dump(2) + "\n",
          .config_json = config(options.special_tokens).dump(2) + "\n",
          .vocab_size = static_cast<std::int32_t>(learner.spelling().size())};
}

void save_tokenizer(const TrainedTokenizer& trained, const std::filesystem::path& folder) {
  make_directories(folder);
  write_text_atomically(folder / "tokenizer_config.json", trained.config_json);
  write_text_atomically(folder / "tokenizer.json", trained.json);
}

}  // namespace grist
