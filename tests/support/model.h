#pragma once
// A model with what it needs to run one micro-batch, for tests.
#include <cstdint>
#include <numeric>
#include <vector>

#include "grist/nn/model.h"
#include "support/compare.h"

namespace grist::test {

// Token ids, targets (the next token), positions and document boundaries of B packed rows of T
// tokens.
struct TestBatch {
  std::vector<std::int32_t> ids, targets, positions, cu_seqlens;

  TestBatch() = default;
  TestBatch(std::int64_t B, std::int64_t T, std::int64_t vocab, const std::string& name) {
    const Random random(11, name);
    cu_seqlens.push_back(0);
    for (std::int64_t i = 0; i < B * T; ++i) {
      const auto at = static_cast<std::uint64_t>(2 * i), V = static_cast<std::uint64_t>(vocab);
      ids.push_back(static_cast<std::int32_t>(random.below(at, V)));
      targets.push_back(static_cast<std::int32_t>(random.below(at + 1, V)));
      positions.push_back(static_cast<std::int32_t>(i % T));
      if ((i + 1) % T == 0) cu_seqlens.push_back(static_cast<std::int32_t>(i + 1));
    }
  }
  nn::Batch view() const {
    const auto n = static_cast<std::int64_t>(ids.size()),
               s = static_cast<std::int64_t>(cu_seqlens.size());
    return {test::view(ids, {n}), test::view(targets, {n}), test::view(positions, {n}),
            test::view(cu_seqlens, {s})};
  }
  std::int64_t num_targets() const {
    return static_cast<std::int64_t>(targets.size()) -
           std::count_if(targets.begin(), targets.end(), [](auto t) { return t < 0; });
  }
};

// Small, with every part that the sizes allow.
inline ModelConfig tiny_model() {
  ModelConfig c;
  c.num_hidden_layers = 2;
  c.hidden_size = 24;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 6;
  c.intermediate_size = 40;
  c.vocab_size = 61;
  c.max_position_embeddings = 32;
  c.initializer_range = 0.2;
  c.moe.num_experts = 8;
  c.moe.num_experts_per_tok = 2;
  c.moe.moe_intermediate_size = 20;
  return c;
}

inline std::vector<float> all_gradients(const nn::Model& model) {
  std::vector<float> out;
  for (const nn::NamedTensor& t : model.parameters().tensors()) {
    const auto* g = t.grad.as<float>();
    out.insert(out.end(), g, g + t.grad.numel());
  }
  return out;
}

}  // namespace grist::test
