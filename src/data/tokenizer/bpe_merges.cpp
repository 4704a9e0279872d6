#include "bpe_merges.h"

#include <algorithm>
#include <unordered_set>

namespace grist {

MergeLearner::MergeLearner(std::span<const WordCounter::Word> words,
                           std::vector<std::string> spelling,
                           const std::array<std::int32_t, 256>& byte_ids)
    : spelling_(std::move(spelling)) {
  for (std::size_t i = 0; i < spelling_.size(); ++i)
    ids_.emplace(spelling_[i], static_cast<std::int32_t>(i));
  words_.reserve(words.size());
  for (const WordCounter::Word& w : words) {
    words_.push_back({symbols_.size(), static_cast<std::uint32_t>(w.bytes.size()), w.count});
    for (const char c : w.bytes) symbols_.push_back(byte_ids[static_cast<unsigned char>(c)]);
  }
  for (std::uint32_t w = 0; w < words_.size(); ++w) {
    const std::int32_t* s = symbols_.data() + words_[w].begin;
    for (std::uint32_t i = 0; i + 1 < words_[w].size; ++i) {
      change(s[i], s[i + 1], words_[w].count);
      came(s[i], s[i + 1], w);
    }
  }
  queue_touched();
}

MergeLearner::Pair& MergeLearner::change(std::int32_t left, std::int32_t right, std::int64_t by) {
  const auto [found, fresh] =
      pair_ids_.try_emplace(key_of(left, right), static_cast<std::uint32_t>(pairs_.size()));
  if (fresh) pairs_.push_back({left, right, 0, {}});
  Pair& p = pairs_[found->second];
  p.count += by;
  return p;
}

void MergeLearner::came(std::int32_t left, std::int32_t right, std::uint32_t word) {
  const std::uint32_t id = pair_ids_.at(key_of(left, right));
  std::vector<std::uint32_t>& where = pairs_[id].where;
  if (where.empty()) touched_.push_back(id);
  if (where.empty() || where.back() != word) where.push_back(word);  // words come in order
}

void MergeLearner::merge_in_word(std::uint32_t word, const Merge& m) {
  Word& w = words_[word];
  std::int32_t* s = symbols_.data() + w.begin;
  std::uint32_t kept = 0;
  for (std::uint32_t i = 0; i < w.size; ++kept) {
    if (i + 1 >= w.size || s[i] != m.left || s[i + 1] != m.right) {
      s[kept] = s[i++];
      continue;
    }
    if (kept > 0) {
      change(s[kept - 1], m.left, -w.count);
      change(s[kept - 1], m.result, w.count);
      came(s[kept - 1], m.result, word);
    }
    s[kept] = m.result;
    i += 2;
    if (i < w.size) {
      change(m.right, s[i], -w.count);
      change(m.result, s[i], w.count);
      came(m.result, s[i], word);
    }
  }
  w.size = kept;
}

// The most frequent pair first, then the one with the smaller ids.
bool MergeLearner::comes_later(const Candidate& a, const Candidate& b) const {
  if (a.count != b.count) return a.count < b.count;
  const Pair& p = pairs_[a.pair];
  const Pair& q = pairs_[b.pair];
  if (a.pair != b.pair) return key_of(p.left, p.right) > key_of(q.left, q.right);
  return a.sequence > b.sequence;
}

void MergeLearner::push(Candidate c) {
  c.sequence = pushed_++;
  heap_.push_back(std::move(c));
  std::push_heap(heap_.begin(), heap_.end(),
                 [this](const Candidate& a, const Candidate& b) { return comes_later(a, b); });
}

MergeLearner::Candidate MergeLearner::pop() {
  std::pop_heap(heap_.begin(), heap_.end(),
                [this](const Candidate& a, const Candidate& b) { return comes_later(a, b); });
  Candidate top = std::move(heap_.back());
  heap_.pop_back();
  return top;
}

void MergeLearner::queue_touched() {
  for (const std::uint32_t id : touched_) {
    Pair& p = pairs_[id];
    std::vector<std::uint32_t> where = std::move(p.where);
    p.where.clear();
    if (p.count > 0) push({.count = p.count, .pair = id, .where = std::move(where)});
  }
  touched_.clear();
}

// Two ways to merge to one spelling give one token.
std::int32_t MergeLearner::token_for(const Pair& pair) {
  std::string joined = spelling_[pair.left] + spelling_[pair.right];
  const auto [found, fresh] = ids_.try_emplace(joined, static_cast<std::int32_t>(spelling_.size()));
  if (fresh) spelling_.push_back(std::move(joined));
  return found->second;
}

void MergeLearner::learn(std::size_t vocab_size, std::int64_t min_frequency,
                         const std::function<void(std::size_t)>& progress) {
  constexpr std::size_t kReportEvery = 64;
  while (spelling_.size() < vocab_size && !heap_.empty()) {
    Candidate top = pop();
    const Pair& pair = pairs_[top.pair];
    if (top.count != pair.count) {  // the count has changed since it was queued
      top.count = pair.count;
      push(std::move(top));
      continue;
    }
    if (top.count < 1 || top.count < min_frequency) break;
    const Merge merge{pair.left, pair.right, token_for(pair)};
    merges_.push_back(merge);
    for (const std::uint32_t word : top.where) merge_in_word(word, merge);
    queue_touched();
    if (merges_.size() % kReportEvery == 0) progress(spelling_.size());
  }
}

std::vector<Merge> MergeLearner::merges() const {
  std::vector<Merge> out;
  std::unordered_set<std::uint64_t> seen;
  for (std::size_t i = merges_.size(); i-- > 0;)
    if (seen.insert(key_of(merges_[i].left, merges_[i].right)).second) out.push_back(merges_[i]);
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace grist
