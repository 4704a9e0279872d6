#include "batch_rows.h"

#include <algorithm>
#include <limits>

#include "grist/core/check.h"

namespace grist {

BatchRows::BatchRows(Batch& batch, std::int64_t rows, const SampleOptions& options)
    : batch_(batch), mask_(options.mask_documents) {
  GRIST_CHECK(rows > 0 && rows <= std::numeric_limits<std::int32_t>::max() / options.seq_length,
              "{} rows of {} tokens", rows, options.seq_length);
  const auto N = static_cast<std::size_t>(rows * options.seq_length);
  batch.sequences = rows;
  batch.seq_length = options.seq_length;
  batch.num_targets = 0;
  batch.max_seqlen = 0;
  batch.ids.assign(N, 0);
  batch.targets.assign(N, -1);
  batch.positions.assign(N, 0);
  batch.cu_seqlens.assign(1, 0);
}

// Ends the segment before `at`, if there is one.
void BatchRows::begin_segment(std::size_t at) {
  const auto here = static_cast<std::int32_t>(at);
  const std::int32_t begin = batch_.cu_seqlens.back();
  if (here == begin) return;
  batch_.cu_seqlens.push_back(here);
  batch_.max_seqlen = std::max(batch_.max_seqlen, here - begin);
}

void BatchRows::add(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> starts) {
  const auto T = static_cast<std::size_t>(batch_.seq_length);
  GRIST_CHECK(tokens.size() <= T + 1 && starts.size() == tokens.size(), "{} tokens for a row of {}",
              tokens.size(), T);
  const std::size_t base = row_ * T;
  const std::size_t inputs = tokens.empty() ? 0 : tokens.size() - 1;
  begin_segment(base);
  for (std::size_t i = 0; i < T; ++i) {
    if (i == inputs || (i < inputs && mask_ && starts[i] != 0)) begin_segment(base + i);
    batch_.positions[base + i] = static_cast<std::int32_t>(base + i) - batch_.cu_seqlens.back();
    if (i >= inputs) continue;
    batch_.ids[base + i] = tokens[i];
    if (mask_ && starts[i + 1] != 0) continue;
    batch_.targets[base + i] = tokens[i + 1];
    ++batch_.num_targets;
  }
  begin_segment(base + T);
  ++row_;
}

}  // namespace grist
