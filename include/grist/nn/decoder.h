#pragma once
// Generation with a key/value cache: feed tokens, get the logits behind the last one. One sequence.
#include <memory>
#include <span>
#include <vector>

#include "grist/nn/model.h"

namespace grist::nn {

class Decoder {
 public:
  // `model` must outlive the decoder, which runs on its device. Room for max_tokens positions (at
  // most max_position_embeddings).
  Decoder(const Model& model, std::int64_t max_tokens);
  // Appends tokens (at least one) and returns V logits for what follows the last; valid until the
  // next call. Dropless.
  std::span<const float> feed(const Context& ctx, std::span<const std::int32_t> tokens);
  std::int64_t length() const { return length_; }
  std::int64_t max_tokens() const { return max_tokens_; }

 private:
  Activations& room_for(std::int64_t tokens);
  void copy_logits(const Context& ctx, const TensorView& logits);
  const Model& model_;
  std::int64_t max_tokens_;
  std::int64_t length_ = 0;
  struct Cache {
    TensorView k, v;  // (max_tokens, Hkv, Dh)
  };
  Arena arena_;
  std::vector<Cache> caches_;
  std::vector<float> logits_;
  std::unique_ptr<Activations> act_;  // of the last feed: one token after another needs the same
};

}  // namespace grist::nn
