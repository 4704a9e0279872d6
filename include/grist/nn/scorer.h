#pragma once
// How likely given tokens are, many texts at a time, what they have in common computed once. A tree
// of pieces says who continues whom: a question is one piece, each of its answers another.
#include <cstdint>
#include <vector>

#include "grist/nn/model.h"

namespace grist::nn {

struct TextPiece {
  std::vector<std::int32_t> tokens{};  // at least one
  std::int64_t parent = -1;            // an earlier piece, which this one goes on from; -1: none
};

// The probability of `target` behind token `row` of all pieces' tokens one after another.
struct TokenQuery {
  std::int64_t row = 0;
  std::int32_t target = 0;
};

class Scorer {
 public:
  // `model` must outlive the scorer, which runs on its device.
  explicit Scorer(const Model& model) : model_(model) {}
  // Negative log-likelihoods in nats, one a query: softmax over all V columns of the output layer,
  // in fp32. Dropless. A value does not depend on what else is asked in the same call. No path of
  // pieces is longer than max_position_embeddings.
  std::vector<float> score(const Context& ctx, const std::vector<TextPiece>& pieces,
                           const std::vector<TokenQuery>& queries) const;

 private:
  const Model& model_;
};

}  // namespace grist::nn
