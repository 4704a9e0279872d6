#pragma once
// Training data for tests of the engine, as a function of the sample's number.
#include <cstdint>

#include "grist/core/random.h"
#include "grist/data/dataset.h"
#include "support/model.h"

namespace grist::train {

inline constexpr std::int64_t kRowLength = 8;  // tokens a sequence

// Rows of words with documents that end inside: another number of targets in every row.
inline void read_rows(std::int64_t first, std::int64_t count, Batch& out) {
  out = {};
  out.sequences = count;
  out.seq_length = kRowLength;
  out.cu_seqlens = {0};
  const Random random(3, "rows");
  for (std::int64_t row = first; row < first + count; ++row) {
    const auto at = static_cast<std::uint64_t>(row * (kRowLength + 2));
    const auto cut = static_cast<std::int64_t>(random.below(at, kRowLength));  // 0: one document
    for (std::int64_t t = 0; t < kRowLength; ++t) {
      const std::int64_t start = t >= cut ? cut : 0;
      out.ids.push_back(
          static_cast<std::int32_t>(random.below(at + 1 + static_cast<std::uint64_t>(t), 61)));
      out.positions.push_back(static_cast<std::int32_t>(t - start));
      const bool end = t + 1 == cut;
      out.targets.push_back(end ? -1
                                : static_cast<std::int32_t>(
                                      random.below(at + 2 + static_cast<std::uint64_t>(t), 61)));
      out.num_targets += end ? 0 : 1;
      if (end || t + 1 == kRowLength)
        out.cu_seqlens.push_back(static_cast<std::int32_t>((row - first) * kRowLength + t + 1));
    }
  }
  out.max_seqlen = kRowLength;
}

}  // namespace grist::train
