#pragma once
// Does a hub folder compute what the grist model computes? Both are run on fixed tokens: grist with
// its own kernels in fp32, the files by hub/reference_forward.h.
#include <cstdint>
#include <vector>

#include "grist/core/json.h"
#include "grist/eval/trained_model.h"
#include "grist/hub/hub_files.h"

namespace grist::hub {

struct Proof {
  std::vector<std::int32_t> ids;  // the tokens
  std::vector<float> logits;      // (tokens, vocab_size) of grist, weights as the files have them
  double difference = 0;     // largest |logit difference|, with the weights as the files have them
  double rounding = 0;       // largest |logit difference| to the weights before rounding to bf16
  double largest_logit = 0;  // absolute
  double smallest_gap = 0;   // ReferenceLogits
  // What fp32 sums in another order may differ by, with room.
  double bound() const;
  bool holds() const;  // false too when a logit is not finite
};

// What both are run on: the same for the same sizes of vocabulary and positions.
std::vector<std::int32_t> fixed_tokens(const ModelConfig& model, int attempt);
// (tokens, vocab_size) of grist's own kernels, one sequence from position 0.
std::vector<float> logits_of(const eval::TrainedModel& trained,
                             std::span<const std::int32_t> tokens);
// Largest |a - b|; not finite when one of them is not.
double largest_difference(const std::vector<float>& a, const std::vector<float>& b);

// `trained` lies on the CPU in fp32. With bf16 its weights are rounded as the files' are, and stay
// so. Where two experts are so close that rounding decides between them, other tokens are taken.
Proof prove(const HubFiles& files, const Json& config, std::span<const HubTensor> tensors,
            DType dtype, eval::TrainedModel& trained);

}  // namespace grist::hub
