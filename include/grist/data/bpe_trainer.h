#pragma once
// Training a byte-level BPE vocabulary: count the words of a corpus with a WordCounter, then
// train_bpe. The result is a function of the corpus alone, not of threads or the order of
// documents, and has the merges that PyPI tokenizers' BpeTrainer learns from the same documents
// (initial_alphabet=ByteLevel.alphabet()): the most frequent pair first, of equals the one with
// the smaller ids.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace grist {

struct BpeTrainerOptions {
  std::int32_t vocab_size = 0;  // special tokens, 256 bytes and merges
  // Get ids 0, 1, ...; the first one ends documents (eos_token and bos_token).
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
  std::int64_t min_frequency = 2;  // pairs seen less often are not merged
  std::string pattern{};           // cuts text into words; empty: GPT-2's
};

// Distinct words of the documents with their counts. Memory grows with the number of distinct
// words: for a very large corpus, give a sample of it.
class WordCounter {
 public:
  // Throws Error{usage} for options that cannot work.
  WordCounter(const BpeTrainerOptions& options, int num_workers);
  ~WordCounter();
  // Calls with different workers may run at the same time. Malformed UTF-8 becomes U+FFFD.
  void add(std::string_view document, int worker);
  std::uint64_t replaced() const;  // U+FFFD put in

  struct Word {
    std::string bytes;
    std::int64_t count = 0;
  };
  std::vector<Word> words() const;  // sorted by bytes

 private:
  struct Worker;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

struct TrainedTokenizer {
  std::string json;         // tokenizer.json
  std::string config_json;  // tokenizer_config.json, for transformers
  std::int32_t vocab_size =
      0;  // smaller than asked for if the corpus has no more pairs (a warning says so)
};

// Shows a progress line. Throws Error{preempted} when a stop signal arrives.
TrainedTokenizer train_bpe(const WordCounter& counter, const BpeTrainerOptions& options);

// Writes tokenizer.json and tokenizer_config.json into the folder, which is made if missing.
void save_tokenizer(const TrainedTokenizer& trained, const std::filesystem::path& folder);

}  // namespace grist
