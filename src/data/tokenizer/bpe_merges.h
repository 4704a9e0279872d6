#pragma once
// Learning merges: counts of adjacent pairs kept up to date while words shrink.
#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "bpe.h"
#include "grist/data/bpe_trainer.h"
#include "tokenizer_model.h"

namespace grist {

class MergeLearner {
 public:
  // `spelling` and `byte_ids`: the tokens there are before the first merge.
  MergeLearner(std::span<const WordCounter::Word> words, std::vector<std::string> spelling,
               const std::array<std::int32_t, 256>& byte_ids);
  // Merges until there are `vocab_size` tokens, or no pair is left that occurs `min_frequency`
  // times. Calls `progress` with the number of tokens now and then.
  void learn(std::size_t vocab_size, std::int64_t min_frequency,
             const std::function<void(std::size_t)>& progress);
  const std::vector<std::string>& spelling() const { return spelling_; }
  std::vector<Merge> merges() const;  // a pair learnt twice counts where it was learnt last

 private:
  struct Word {
    std::size_t begin = 0;   // in symbols_
    std::uint32_t size = 0;  // shrinks
    std::int64_t count = 0;
  };
  struct Pair {
    std::int32_t left = 0, right = 0;
    std::int64_t count = 0;
    std::vector<std::uint32_t> where;  // words the pair came to since it was last queued
  };
  struct Candidate {
    std::int64_t count = 0;
    std::uint32_t pair = 0;      // in pairs_
    std::uint64_t sequence = 0;  // of push(): decides between two entries of one pair
    std::vector<std::uint32_t> where{};
  };

  Pair& change(std::int32_t left, std::int32_t right, std::int64_t by);
  void came(std::int32_t left, std::int32_t right, std::uint32_t word);
  void merge_in_word(std::uint32_t word, const Merge& m);
  void queue_touched();
  bool comes_later(const Candidate& a, const Candidate& b) const;
  void push(Candidate c);
  Candidate pop();
  std::int32_t token_for(const Pair& pair);

  std::vector<std::int32_t> symbols_;
  std::vector<Word> words_;
  std::vector<Pair> pairs_;
  std::unordered_map<std::uint64_t, std::uint32_t> pair_ids_;
  std::vector<std::uint32_t> touched_;  // pairs with a `where`
  std::vector<Candidate> heap_;
  std::uint64_t pushed_ = 0;
  std::vector<std::string> spelling_;
  TokenMap ids_;
  std::vector<Merge> merges_;
};

}  // namespace grist
