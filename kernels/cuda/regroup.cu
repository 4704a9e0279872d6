// Regroup plan, CUDA: (source, expert, token) -> (expert, source, token).
//
// Shapes    counts (S, E); at most R rows in all. Counts are trusted; rows beyond R are not
//           written.
// Launch    two blocks sum the counts, each in one order, then a block a pair of source and expert
//           writes its rows' places.
// Numerics  integers, the CPU's exactly.
// Traffic   counts read twice; 8 bytes written a row.
// Scratch   4 bytes a pair.
// See       kernels/cpu/dispatch.cpp, test tests/cuda/regroup_test.cpp.
#include "block_scan.cuh"
#include "grist/core/memory.h"
#include "grist/ops/dispatch.h"
#include "kernels/backends.h"
#include "launch.h"

namespace grist::cuda {
namespace {

constexpr int kSumThreads = 1024;
constexpr int kRowThreads = 128;

struct Regroup {
  std::int32_t* expert_offsets;
  std::int32_t* source_offsets;
  std::int32_t* row_received;
  std::int32_t* received_row;
  const std::int32_t* counts;
  int S, E, rows;
  std::int32_t* received_begins;  // scratch (S, E): first received row of each pair
};

// Block 0 sums in the order of the received rows, block 1 in that of the grouped ones.
__global__ void __launch_bounds__(kSumThreads) sum_counts_kernel(Regroup a) {
  __shared__ int shared[kWarp];
  const bool grouped = blockIdx.x == 1;
  const int pairs = a.S * a.E;
  int before = 0;
  for (int first = 0; first < pairs; first += kSumThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const int pair = grouped ? i % a.S * a.E + i / a.S : i;  // its place in counts
    const Scan scan = block_scan(i < pairs ? a.counts[pair] : 0, shared);
    if (i < pairs && grouped) {
      a.source_offsets[i] = before + scan.before;
      if (i % a.S == 0) a.expert_offsets[i / a.S] = before + scan.before;
    } else if (i < pairs) {
      a.received_begins[i] = before + scan.before;
    }
    before += scan.total;
  }
  if (!grouped || threadIdx.x != 0) return;
  a.source_offsets[pairs] = before;
  a.expert_offsets[a.E] = before;
}

__global__ void __launch_bounds__(kRowThreads) regroup_rows_kernel(Regroup a) {
  const int pair = static_cast<int>(blockIdx.x);  // e * S + s
  const int begin = a.source_offsets[pair];
  const int count = a.source_offsets[pair + 1] - begin;
  const int received = a.received_begins[pair % a.S * a.E + pair / a.S];
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kRowThreads) {
    if (begin + i < a.rows) a.row_received[begin + i] = received + i;
    if (received + i < a.rows) a.received_row[received + i] = begin + i;
  }
}

}  // namespace

void regroup_plan(const Context& ctx, const ops::RegroupPlan& a) {
  const std::int64_t S = a.counts.shape[0], E = a.counts.shape[1];
  const ScratchScope scope(ctx.scratch);
  const Regroup r{.expert_offsets = a.expert_offsets.as<std::int32_t>(),
                  .source_offsets = a.source_offsets.as<std::int32_t>(),
                  .row_received = a.row_received.as<std::int32_t>(),
                  .received_row = a.received_row.as<std::int32_t>(),
                  .counts = a.counts.as<std::int32_t>(),
                  .S = static_cast<int>(S),
                  .E = static_cast<int>(E),
                  .rows = static_cast<int>(a.row_received.shape[0]),
                  .received_begins = ctx.scratch->allocate<std::int32_t>(S * E)};
  launch(sum_counts_kernel, 2, kSumThreads, 0, stream_of(ctx), r);
  launch(regroup_rows_kernel, static_cast<unsigned>(S * E), kRowThreads, 0, stream_of(ctx), r);
}

}  // namespace grist::cuda
