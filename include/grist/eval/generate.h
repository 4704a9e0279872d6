#pragma once
// Text from a trained model, token by token.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/eval/trained_model.h"

namespace grist::eval {

struct SamplingOptions {
  double temperature = 1.0;  // 0: greedy, the most likely token (ties to the lower id)
  std::int64_t top_k = 0;    // only the k most likely; 0: all
  double top_p = 1.0;  // only the most likely ones that together reach p (Holtzman et al. 2020)
  std::uint64_t seed = 0;
};

// The token at position `position` of a text: a function of the logits, the options and the
// position alone.
std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          std::uint64_t position);

struct GenerateOptions {
  std::string prompt;
  std::int64_t max_tokens = 128;
  SamplingOptions sampling;
};

enum class StopReason : std::uint8_t {
  end_of_text,
  max_tokens,
  no_room,  // max_position_embeddings reached
  stopped   // a signal came
};

// Calls `emit` with the text of each new token as it comes (bytes; a character may be cut between
// two calls). Needs the tokenizer: Error{not_found} without one, Error{usage} for impossible
// options.
StopReason generate(const TrainedModel& trained, const GenerateOptions& options,
                    const std::function<void(std::string_view)>& emit);

}  // namespace grist::eval
