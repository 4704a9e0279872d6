#pragma once
// The independent judge of an export or import: a model's logits from the files alone, in plain
// loops over float64, written from the formulas of transformers' modeling_<family>.py. It shares no
// code with nn/, the kernels or the table of families, and reads config.json by itself.
#include <cstdint>
#include <span>
#include <vector>

#include "grist/core/json.h"
#include "grist/hub/hub_files.h"

namespace grist::hub {

struct ReferenceLogits {
  std::int64_t vocab_size = 0;
  std::vector<float> logits;  // (tokens, vocab_size)
  // Smallest difference between the last expert chosen and the first one left out, over tokens and
  // layers, in what the choice is made by. Where it is near rounding, another program may choose
  // otherwise. Infinite without experts.
  double smallest_gap = 0;
};

// One sequence that starts at position 0, dropless. Memory: the activations and a part of a matrix.
// A tensor that is missing, of another shape or not finite is Error{bad_data} with its name.
ReferenceLogits reference_logits(const HubFiles& files, const Json& config,
                                 std::span<const std::int32_t> tokens);

}  // namespace grist::hub
