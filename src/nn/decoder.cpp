#include "grist/nn/decoder.h"

#include <cmath>
#include <cstring>

#include "block.h"
#include "grist/core/check.h"
#include "grist/ops/attention.h"
#include "grist/ops/embedding.h"
#include "grist/ops/linear.h"

namespace grist::nn {

Decoder::Decoder(const Model& model, std::int64_t max_tokens)
    : model_(model), max_tokens_(max_tokens), arena_("key/value cache", Device::cpu, nullptr) {
  const ModelConfig& c = model.config();
  GRIST_CHECK(max_tokens > 0 && max_tokens <= c.max_position_embeddings,
              "{} positions, the model has {}", max_tokens, c.max_position_embeddings);
  const Shape shape = {max_tokens, c.num_key_value_heads, c.head_dim};
  std::vector<std::size_t> offsets;
  for (std::int64_t i = 0; i < 2 * c.num_hidden_layers; ++i)
    offsets.push_back(arena_.reserve(DType::f32, shape));
  arena_.commit();
  for (std::size_t i = 0; i < offsets.size(); i += 2) {
    caches_.push_back({arena_.view(offsets[i], DType::f32, shape),
                       arena_.view(offsets[i + 1], DType::f32, shape)});
  }
  logits_.resize(static_cast<std::size_t>(c.vocab_size));
}

namespace {

void append(const TensorView& cache, std::int64_t length, const TensorView& rows_) {
  std::memcpy(rows(cache, length, length + rows_.shape[0]).data, rows_.data, rows_.bytes());
}

}  // namespace

Residual Decoder::run_layers(const Context& ctx, Activations& act, const AttentionInput& in) {
  const ModelConfig& c = model_.config();
  const std::int64_t n = act.tokens(), total = length_ + n;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.head_dim)));
  Residual residual;
  for (std::size_t i = 0; i < act.layers.size(); ++i) {
    LayerActivations& a = act.layers[i];
    const LayerRun run{ctx, c, model_.parameters().layers[i], a, act.work, n};
    input_norm(run, residual);
    project_qkv(run, in);
    append(caches_[i].k, length_, a.k);
    append(caches_[i].v, length_, a.v);
    ops::attention_forward(ctx, {.o = a.o,
                                 .lse = a.lse,
                                 .q = a.q,
                                 .k = rows(caches_[i].k, 0, total),
                                 .v = rows(caches_[i].v, 0, total),
                                 .cu_seqlens_q = in.cu_seqlens_q,
                                 .cu_seqlens_k = in.cu_seqlens_k,
                                 .scale = scale});
    ops::linear_forward(ctx, {.y = act.work.out,
                              .x = reshape(a.o, {n, c.num_attention_heads * c.head_dim}),
                              .w = model_.parameters().layers[i].o.compute});
    mid_norm(run, true);
    const std::size_t moe = i - static_cast<std::size_t>(c.first_moe_layer());
    RoutingInput routing;
    if (run.p.is_moe()) routing.bias = selection_bias(model_.router_state_, {}, moe);
    ffn_forward(run, routing);
    residual = {act.work.out, a.h_mid};
  }
  return residual;
}

std::span<const float> Decoder::feed(const Context& ctx, std::span<const std::int32_t> tokens) {
  const auto n = static_cast<std::int64_t>(tokens.size());
  GRIST_CHECK(n > 0 && length_ + n <= max_tokens_, "{} tokens after {} do not fit in {}", n,
              length_, max_tokens_);
  const ModelConfig& c = model_.config();
  const Parameters& p = model_.parameters();
  Activations act(c, n, 1, Keep::nothing, Device::cpu, nullptr);
  std::vector<std::int32_t> positions(tokens.size());
  for (std::size_t i = 0; i < positions.size(); ++i)
    positions[i] = static_cast<std::int32_t>(length_) + static_cast<std::int32_t>(i);
  const std::int32_t total = static_cast<std::int32_t>(length_ + n);
  const std::int32_t cu_q[2] = {0, static_cast<std::int32_t>(n)}, cu_k[2] = {0, total};
  const AttentionInput in{{positions.data(), DType::i32, {n}},
                          {cu_q, DType::i32, {2}},
                          {cu_k, DType::i32, {2}},
                          model_.rope_table_};

  ops::embedding_forward(ctx, {.y = act.layers[0].h_in,
                               .table = p.embedding.master,
                               .ids = {tokens.data(), DType::i32, {n}}});
  final_norm(ctx, c, p, act, run_layers(ctx, act, in));
  ops::linear_forward(ctx, {.y = {logits_.data(), DType::f32, {1, c.vocab_size}},
                            .x = rows(act.n_final, n - 1, n),
                            .w = p.output().compute});
  length_ += n;
  return logits_;
}

}  // namespace grist::nn
