#pragma once
// Texts that begin alike as a tree of pieces (nn/scorer.h), so that their beginning is computed
// once.
#include <cstdint>
#include <vector>

#include "grist/nn/scorer.h"

namespace grist::eval {

struct ScoredText {
  std::vector<std::int32_t> tokens{};
  std::int64_t scored = 0;  // the last ones; fewer than tokens
};

struct PrefixTree {
  std::vector<nn::TextPiece> pieces{};
  std::vector<nn::TokenQuery> queries{};  // text by text, each text's in order
  std::int64_t tokens = 0;                // of all pieces
};

// The texts' places such that those which begin alike are neighbours.
std::vector<std::size_t> tree_order(const std::vector<ScoredText>& texts);

// Of texts[order[first]], texts[order[first + 1]], ..., as many as have about `batch_tokens` tokens
// to compute, at least one. `order`: tree_order(texts).
PrefixTree next_tree(const std::vector<ScoredText>& texts, const std::vector<std::size_t>& order,
                     std::size_t first, std::int64_t batch_tokens);

}  // namespace grist::eval
