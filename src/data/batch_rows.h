#pragma once
// Fills a Batch row by row.
#include <cstdint>
#include <span>

#include "grist/data/dataset.h"

namespace grist {

class BatchRows {
 public:
  // Sizes the batch for `rows` rows; every row must then be added.
  BatchRows(Batch& batch, std::int64_t rows, const SampleOptions& options);
  // tokens: at most seq_length + 1, the inputs and the last target; starts marks document starts
  // among them. A short row is padded.
  void add(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> starts);

 private:
  void begin_segment(std::size_t at);
  Batch& batch_;
  bool mask_;
  std::size_t row_ = 0;
};

}  // namespace grist
