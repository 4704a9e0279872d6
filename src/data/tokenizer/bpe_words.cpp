// Counting words, one table a worker, merged at the end in the order of their bytes.
#include <algorithm>
#include <array>

#include "grist/core/check.h"
#include "grist/data/bpe_trainer.h"
#include "tokenizer_model.h"

namespace grist {

namespace {

void check_options(const BpeTrainerOptions& o) {
  const auto least = static_cast<std::int64_t>(256 + o.special_tokens.size());
  if (o.vocab_size < least)
    fail(ExitCode::usage, "a vocabulary of {} tokens is too small: bytes and special tokens are {}",
         o.vocab_size, least);
  for (std::size_t i = 0; i < o.special_tokens.size(); ++i) {
    const std::string& token = o.special_tokens[i];
    if (unicode::valid_prefix(token, 0) != token.size())
      fail(ExitCode::usage, "special token {} is not valid UTF-8", i + 1);
    if (token.empty() || unicode::decode_valid(token.data()).bytes == token.size())
      fail(ExitCode::usage, "special token \"{}\" is too short: it needs two characters or more",
           token);
    if (std::count(o.special_tokens.begin(), o.special_tokens.end(), token) > 1)
      fail(ExitCode::usage, "special token \"{}\" is given twice", token);
  }
}

}  // namespace

struct WordCounter::Worker {
  std::unordered_map<std::string, std::int64_t, StringHash, std::equal_to<>> counts;
  MatchState match;
  std::string repaired;
  std::uint64_t replaced = 0;
};

struct WordCounter::Parts {
  unicode::Classes classes;
  std::unique_ptr<const Cutter> cutter;
  std::vector<Worker> workers;
};

WordCounter::WordCounter(const BpeTrainerOptions& options, int num_workers)
    : parts_(std::make_unique<Parts>()) {
  check_options(options);
  GRIST_CHECK(num_workers > 0, "{} workers", num_workers);
  const std::string_view pattern = options.pattern.empty() ? kGpt2Pattern : options.pattern;
  parts_->cutter = make_scanner(pattern, parts_->classes);
  if (!parts_->cutter) parts_->cutter = make_regex_cutter(pattern, "word pattern");
  parts_->workers = std::vector<Worker>(static_cast<std::size_t>(num_workers));
}

WordCounter::~WordCounter() = default;

void WordCounter::add(std::string_view document, int worker) {
  constexpr std::size_t kMaxText = (1ULL << 31U) - 64;
  Worker& w = parts_->workers.at(static_cast<std::size_t>(worker));
  if (unicode::valid_prefix(document, 0) != document.size()) {
    w.replaced += unicode::repair_utf8(document, w.repaired);
    document = w.repaired;
  }
  if (document.size() > kMaxText)
    fail(ExitCode::bad_data, "a document of {} bytes is too long; cut it below 2 GiB",
         document.size());
  std::array<std::uint32_t, 256> ends;
  for (std::size_t begin = 0; begin < document.size();) {
    const std::size_t count = parts_->cutter->cut(document, begin, ends, w.match);
    for (std::size_t i = 0; i < count; ++i) {
      const std::string_view word = document.substr(begin, ends[i] - begin);
      const auto found = w.counts.find(word);
      if (found != w.counts.end())
        ++found->second;
      else
        w.counts.emplace(word, 1);
      begin = ends[i];
    }
  }
}

std::uint64_t WordCounter::replaced() const {
  std::uint64_t sum = 0;
  for (const Worker& w : parts_->workers) sum += w.replaced;
  return sum;
}

std::vector<WordCounter::Word> WordCounter::words() const {
  std::vector<Word> all;
  for (const Worker& w : parts_->workers)
    for (const auto& [word, count] : w.counts) all.push_back({word, count});
  std::sort(all.begin(), all.end(), [](const Word& a, const Word& b) { return a.bytes < b.bytes; });
  std::size_t kept = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (kept > 0 && all[kept - 1].bytes == all[i].bytes) {
      all[kept - 1].count += all[i].count;
    } else {
      if (kept != i) all[kept] = std::move(all[i]);
      ++kept;
    }
  }
  all.resize(kept);
  return all;
}

}  // namespace grist
