#pragma once
// Everything a run carries from step to step, and its form in a checkpoint: parameters and moments
// under their global names, router state, counters. What is not here does not survive a restart.
#include <cstdint>
#include <string>
#include <vector>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/json.h"
#include "grist/nn/model.h"

namespace grist::train {

// First and second moments of AdamW, laid out like the parameters.
class Moments {
 public:
  Moments(const nn::Parameters& parameters, Device device, MemoryLedger* ledger);
  TensorView m(const nn::NamedTensor& t) const { return at(m_offset_, t); }
  TensorView v(const nn::NamedTensor& t) const { return at(v_offset_, t); }

 private:
  TensorView at(std::size_t base, const nn::NamedTensor& t) const {
    return arena_.view(base + static_cast<std::size_t>(t.offset) * sizeof(float), DType::f32,
                       t.shape);
  }
  Arena arena_;
  std::size_t m_offset_, v_offset_;
};

struct Counters {
  std::int64_t step = 0;
  std::int64_t samples = 0;     // consumed
  std::int64_t tokens = 0;      // consumed
  std::int64_t adam_steps = 0;  // updates applied; skipped ones do not count
  std::int64_t skipped = 0;     // updates skipped because something was not finite
  std::int64_t skipped_in_a_row = 0;
  std::int64_t validated_step = -1;  // after which validation ran last; -1: never
  std::uint64_t metrics_bytes = 0;   // length of metrics.jsonl
};
Json to_json(const Counters& c);
Counters counters_from_json(const Json& j);

// Slices that point into the model and the moments: both must stay unchanged until the save is
// over.
std::vector<TensorSlice> checkpoint_slices(nn::Model& model, const Moments& moments);
std::vector<TensorDestination> checkpoint_destinations(nn::Model& model, const Moments* moments);

}  // namespace grist::train
