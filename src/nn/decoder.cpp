#include "grist/nn/decoder.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "cached_layers.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/uploads.h"
#include "grist/ops/embedding.h"
#include "grist/ops/linear.h"

namespace grist::nn {

Decoder::Decoder(const Model& model, std::int64_t max_tokens)
    : model_(model),
      max_tokens_(max_tokens),
      arena_("key/value cache", model.parameters().output().compute.device, nullptr) {
  const ModelConfig& c = model.config();
  GRIST_CHECK(max_tokens > 0 && max_tokens <= c.max_position_embeddings,
              "{} positions, the model has {}", max_tokens, c.max_position_embeddings);
  const Shape shape = {max_tokens, c.num_key_value_heads, c.head_dim};
  const DType dtype = model.parameters().output().compute.dtype;
  std::vector<std::size_t> offsets;
  for (std::int64_t i = 0; i < 2 * c.num_hidden_layers; ++i)
    offsets.push_back(arena_.reserve(dtype, shape));
  arena_.commit();
  for (std::size_t i = 0; i < offsets.size(); i += 2) {
    caches_.push_back(
        {arena_.view(offsets[i], dtype, shape), arena_.view(offsets[i + 1], dtype, shape)});
  }
  logits_.resize(static_cast<std::size_t>(c.vocab_size));
}

void Decoder::copy_logits(const Context& ctx, const TensorView& logits) {
  if (logits.dtype == DType::f32) {
    copy_out(ctx, logits_.data(), logits);
    return;
  }
  const std::vector<Bf16> narrow = to_host<Bf16>(ctx, logits);
  std::transform(narrow.begin(), narrow.end(), logits_.begin(), [](Bf16 b) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(b.bits) << 16);
  });
}

Activations& Decoder::room_for(std::int64_t tokens) {
  const ops::WeightView& like = model_.parameters().output().compute;
  if (act_ == nullptr || act_->tokens() != tokens)
    act_ = std::make_unique<Activations>(model_.config(), tokens, 1, Keep::nothing, like.device,
                                         nullptr, nullptr, like.dtype);
  return *act_;
}

std::span<const float> Decoder::feed(const Context& ctx, std::span<const std::int32_t> tokens) {
  const auto n = static_cast<std::int64_t>(tokens.size());
  GRIST_CHECK(n > 0 && length_ + n <= max_tokens_, "{} tokens after {} do not fit in {}", n,
              length_, max_tokens_);
  const ModelConfig& c = model_.config();
  const Parameters& p = model_.parameters();
  Activations& act = room_for(n);
  std::vector<std::int32_t> places(tokens.size());
  std::iota(places.begin(), places.end(), static_cast<std::int32_t>(length_));
  const std::int32_t ends[4] = {0, static_cast<std::int32_t>(n), 0,
                                static_cast<std::int32_t>(length_ + n)};
  const Readable ids(ctx, {tokens.data(), DType::i32, {n}});
  const Readable positions(ctx, {places.data(), DType::i32, {n}});
  const Readable cu_q(ctx, {ends, DType::i32, {2}}), cu_k(ctx, {ends + 2, DType::i32, {2}});
  const AttentionInput in{positions.view(), cu_q.view(), cu_k.view(), model_.rope_table_};
  if (model_.router_values_)
    copy_in(ctx, model_.router_values_, router_values(model_.router_state_).data());

  ops::embedding_forward(ctx,
                         {.y = act.layers[0].h_in, .table = p.embedding.master, .ids = ids.view()});
  const auto cached = [&](std::size_t i, const LayerActivations& a) {
    const std::int64_t total = length_ + n;
    copy(ctx, rows(caches_[i].k, length_, total), a.k);
    copy(ctx, rows(caches_[i].v, length_, total), a.v);
    return KeysValues{rows(caches_[i].k, 0, total), rows(caches_[i].v, 0, total)};
  };
  final_norm(ctx, c, p, act,
             run_cached_layers(ctx, model_, model_.router_values_, act, in, cached));
  const ScratchScope scope(ctx.scratch);
  const TensorView logits = ctx.scratch->tensor(act.n_final.dtype, {1, c.vocab_size});
  ops::linear_forward(ctx,
                      {.y = logits, .x = rows(act.n_final, n - 1, n), .w = p.output().compute});
  copy_logits(ctx, logits);
  length_ += n;
  return logits_;
}

}  // namespace grist::nn
