#include "prefix_tree.h"

#include <algorithm>
#include <numeric>
#include <span>

namespace grist::eval {

namespace {

// A shorter beginning is cheaper to compute again than to look up.
constexpr std::size_t kMinShared = 8;
// Keys and values of a piece's whole path are laid out for it: at most so many times batch_tokens.
constexpr std::int64_t kMaxKeys = 8;

using Input = std::span<const std::int32_t>;  // all but the last token, which is only asked for

Input input_of(const ScoredText& t) {
  return std::span(t.tokens).first(t.tokens.size() - 1);
}

std::size_t common(Input a, Input b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first -
                                  a.begin());
}

class Builder {
 public:
  explicit Builder(std::vector<const ScoredText*> texts) : texts_(std::move(texts)) {
    for (const ScoredText* t : texts_) inputs_.push_back(input_of(*t));
    rows_.resize(texts_.size());
    add(0, texts_.size(), 0, -1);
  }

  PrefixTree take() {
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      const auto& tokens = texts_[i]->tokens;
      const std::size_t first = tokens.size() - rows_[i].size();
      for (std::size_t r = 0; r < rows_[i].size(); ++r)
        tree_.queries.push_back({rows_[i][r], tokens[first + r]});
    }
    return std::move(tree_);
  }

 private:
  // Texts [lo, hi), whose first `depth` tokens are in the piece `parent` and those before it.
  void add(std::size_t lo, std::size_t hi, std::size_t depth, std::int64_t parent) {
    const std::size_t shared = common(inputs_[lo], inputs_[hi - 1]);  // sorted: of all of them
    const bool same = shared == inputs_[hi - 1].size();
    if (shared > depth && (same || shared - depth >= kMinShared)) {
      parent = add_piece(lo, hi, depth, shared, parent);
      depth = shared;
    }
    for (std::size_t at = lo; at < hi;) {
      std::size_t end = at + 1;
      const bool ends = inputs_[at].size() == shared;
      while (end < hi &&
             (ends ? inputs_[end].size() == shared : inputs_[end][shared] == inputs_[at][shared]))
        ++end;
      if (!ends || depth < shared) add(at, end, depth, parent);
      at = end;
    }
  }

  std::int64_t add_piece(std::size_t lo, std::size_t hi, std::size_t from, std::size_t to,
                         std::int64_t parent) {
    const Input tokens = inputs_[lo].subspan(from, to - from);
    tree_.pieces.push_back({{tokens.begin(), tokens.end()}, parent});
    for (std::size_t i = lo; i < hi; ++i) {
      const std::size_t first = inputs_[i].size() - static_cast<std::size_t>(texts_[i]->scored);
      // Position p tells of token p + 1; the first scored token is told of in front of it.
      for (std::size_t p = std::max(from, first); p < to; ++p)
        rows_[i].push_back(tree_.tokens + static_cast<std::int64_t>(p - from));
    }
    tree_.tokens += static_cast<std::int64_t>(to - from);
    return std::ssize(tree_.pieces) - 1;
  }

  std::vector<const ScoredText*> texts_;
  std::vector<Input> inputs_;
  std::vector<std::vector<std::int64_t>> rows_;  // of each text, where its scored tokens are told
  PrefixTree tree_;
};

}  // namespace

std::vector<std::size_t> tree_order(const std::vector<ScoredText>& texts) {
  std::vector<std::size_t> order(texts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const Input x = input_of(texts[a]), y = input_of(texts[b]);
    return std::lexicographical_compare(x.begin(), x.end(), y.begin(), y.end());
  });
  return order;
}

PrefixTree next_tree(const std::vector<ScoredText>& texts, const std::vector<std::size_t>& order,
                     std::size_t first, std::int64_t batch_tokens) {
  std::vector<const ScoredText*> chosen;
  std::int64_t tokens = 0, keys = 0;
  for (std::size_t i = first; i < order.size(); ++i) {
    const ScoredText& t = texts[order[i]];
    const Input input = input_of(t);
    std::size_t known = chosen.empty() ? 0 : common(input, input_of(*chosen.back()));
    if (known < kMinShared) known = 0;
    tokens += static_cast<std::int64_t>(input.size() - known);
    keys += std::ssize(input);
    if (!chosen.empty() && (tokens > batch_tokens || keys > kMaxKeys * batch_tokens)) break;
    chosen.push_back(&t);
  }
  return Builder(std::move(chosen)).take();
}

}  // namespace grist::eval
