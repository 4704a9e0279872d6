// Dispatch plan, CUDA: N*K choices -> rows sorted by expert, stably in token order, after capacity
// dropping.
//
// Shapes    ids, weights, slot_row (N, K); expert_offsets (E+1); R = N*K rows.  Ids are trusted.
// Launch    counting sort: (1) tiles of kTile choices count their experts, (2) running sums over
//           tiles, (3) over experts, (4) tiles place their choices. With a capacity (4) makes a
//           sorted list, and (5) a block an expert finds the last choice it keeps by radix
//           selection and numbers the rows.
// Numerics  integers, the CPU's exactly. Row order comes from positions, never from timing; the
//           atomics of (5) count in integers.
// Traffic   ids twice; row_token, row_weight and slot_row written once, weights read once, both at
//           scattered places. With a capacity the sorted list written once and read up to 5 times.
// Scratch   4 bytes a tile and expert; with a capacity 4 bytes a choice.
// See       kernels/cpu/dispatch.cpp, test tests/cuda/dispatch_test.cpp.
#include <grist_ptx.cuh>

#include "block_scan.cuh"
#include "grist/core/memory.h"
#include "grist/ops/dispatch.h"
#include "kernels/backends.h"
#include "kernels/router_scalar.h"
#include "launch.h"

namespace grist::cuda {
namespace {

constexpr int kTileWarps = 8;
constexpr int kTileThreads = kTileWarps * kWarp;
constexpr int kWarpSlots = 128;  // consecutive choices of a warp
constexpr int kTile = kTileWarps * kWarpSlots;
constexpr int kScanExperts = 32, kScanParts = 8;  // of a block that sums over tiles
constexpr int kExpertThreads = 1024;
constexpr int kKeepThreads = 512;
constexpr int kBins = 256;

// A "slot" is a choice's position n * K + k; the sort orders slots.
struct Plan {
  std::int32_t* expert_offsets;
  std::int32_t* row_token;
  float* row_weight;
  std::int32_t* slot_row;
  const std::int32_t* ids;
  const float* weights;
  std::int64_t slots;
  int E, K, tiles;
  int capacity;  // 0: none
  bool by_position;
  // Scratch.
  std::int32_t* tile_counts;  // (tiles, E) choices of e in the tile; then in the tiles before it
  std::int32_t* begins;       // (E+1) counts of experts; then where each begins in sorted order
  std::int32_t* sorted;       // (R) slots by expert; with a capacity only
};

// Calls f(slot, expert, place) for each slot of the warp's run, from its first slot on: place
// counts from places[expert] on, and that is left behind the last.
template <class F> __device__ void place_slots(std::uint16_t* places, const Plan& a, F&& f) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile + warp * kWarpSlots;
  for (int round = 0; round < kWarpSlots; round += kWarp) {
    const std::int64_t slot = first + round + lane;
    const int e = slot < a.slots ? a.ids[slot] : -1;
    const unsigned same = __match_any_sync(kAllLanes, e);
    const int before = __popc(same & ((1U << lane) - 1));
    const int place = e < 0 ? 0 : places[e] + before;
    __syncwarp();
    if (e >= 0 && before == 0) places[e] = static_cast<std::uint16_t>(place + __popc(same));
    __syncwarp();
    if (e >= 0) f(static_cast<std::int32_t>(slot), e, place);
  }
}

// places[warp][e]: how many choices of e the warp has.
__device__ void count_slots(std::uint16_t* places, const Plan& a) {
  for (int i = static_cast<int>(threadIdx.x); i < kTileWarps * a.E; i += kTileThreads)
    places[i] = 0;
  __syncthreads();
  place_slots(places + threadIdx.x / kWarp * a.E, a, [](std::int32_t, int, int) {});
  __syncthreads();
}

__global__ void __launch_bounds__(kTileThreads) count_kernel(Plan a) {
  GRIST_DYNAMIC_SHARED(std::uint16_t, shared);
  count_slots(&shared, a);
  for (int e = static_cast<int>(threadIdx.x); e < a.E; e += kTileThreads) {
    int count = 0;
    for (int w = 0; w < kTileWarps; ++w) count += (&shared)[w * a.E + e];
    a.tile_counts[static_cast<std::int64_t>(blockIdx.x) * a.E + e] = count;
  }
}

// tile_counts become sums over the tiles before; begins[e] the number of choices of e. A block has
// kScanExperts experts; its threads of one expert share the tiles.
__global__ void __launch_bounds__(kScanExperts* kScanParts) sum_tiles_kernel(Plan a) {
  __shared__ std::int32_t part_sums[kScanParts][kScanExperts];
  const int column = static_cast<int>(threadIdx.x) % kScanExperts;
  const int part = static_cast<int>(threadIdx.x) / kScanExperts;
  const int e = static_cast<int>(blockIdx.x) * kScanExperts + column;
  const int tiles_a_part = (a.tiles + kScanParts - 1) / kScanParts;
  const int begin = part * tiles_a_part;
  const int end = min(a.tiles, begin + tiles_a_part);
  std::int32_t sum = 0;
  for (int t = begin; e < a.E && t < end; ++t)
    sum += a.tile_counts[static_cast<std::int64_t>(t) * a.E + e];
  part_sums[part][column] = sum;
  __syncthreads();
  if (e >= a.E) return;
  std::int32_t before = 0;
  for (int p = 0; p < part; ++p) before += part_sums[p][column];
  if (part == kScanParts - 1) a.begins[e] = before + sum;
  for (int t = begin; t < end; ++t) {
    std::int32_t& count = a.tile_counts[static_cast<std::int64_t>(t) * a.E + e];
    const std::int32_t here = count;
    count = before;
    before += here;
  }
}

__device__ int kept_of(int count, const Plan& a) {
  return a.capacity > 0 ? min(count, a.capacity) : count;
}

// begins from counts to sums over the experts before, and expert_offsets. One block.
__global__ void __launch_bounds__(kExpertThreads) sum_experts_kernel(Plan a) {
  __shared__ int shared[kWarp];
  int choices = 0, rows = 0;
  for (int first = 0; first < a.E; first += kExpertThreads) {
    const int e = first + static_cast<int>(threadIdx.x);
    const int count = e < a.E ? a.begins[e] : 0;
    const Scan all = block_scan(count, shared);
    const Scan kept = block_scan(kept_of(count, a), shared);
    if (e < a.E) {
      a.begins[e] = choices + all.before;
      a.expert_offsets[e] = rows + kept.before;
    }
    choices += all.total;
    rows += kept.total;
  }
  if (threadIdx.x != 0) return;
  a.begins[a.E] = choices;
  a.expert_offsets[a.E] = rows;
}

__device__ void store_row(const Plan& a, std::int32_t row, std::int32_t slot) {
  a.row_token[row] = slot / a.K;
  a.row_weight[row] = a.weights[slot];
  a.slot_row[slot] = row;
}

__global__ void __launch_bounds__(kTileThreads) place_kernel(Plan a) {
  GRIST_DYNAMIC_SHARED(std::uint16_t, shared);
  std::uint16_t* places = &shared;
  count_slots(places, a);
  for (int e = static_cast<int>(threadIdx.x); e < a.E; e += kTileThreads) {
    int before = 0;
    for (int w = 0; w < kTileWarps; ++w) {
      const int count = places[w * a.E + e];
      places[w * a.E + e] = static_cast<std::uint16_t>(before);
      before += count;
    }
  }
  __syncthreads();
  const std::int32_t* tile_begins = a.tile_counts + static_cast<std::int64_t>(blockIdx.x) * a.E;
  place_slots(places + threadIdx.x / kWarp * a.E, a, [&](std::int32_t slot, int e, int place) {
    const std::int32_t at = a.begins[e] + tile_begins[e] + place;
    if (a.capacity > 0)
      a.sorted[at] = slot;
    else
      store_row(a, at, slot);
  });
}

// ---- capacity --------------------------------------------------------------------------------

// An expert's slots, in order, and what it keeps first: small keys, and of equal ones the first.
struct ExpertSlots {
  const std::int32_t* slots;
  int count;
  const float* weights;
  int K;
  bool by_position;

  __device__ std::uint32_t key(int i) const {
    const std::int32_t slot = slots[i];
    return by_position ? static_cast<std::uint32_t>(slot % K) : ~row::order_key(weights[slot]);
  }
};

// All smaller keys are kept, and the first `ties` of equal ones.
struct Threshold {
  std::uint32_t key;
  int ties;
};

// Adds one to bins[bin] for each thread with a bin >= 0; one atomic for equal bins of a warp.
__device__ void add_to_bins(int* bins, int bin) {
  const unsigned same = __match_any_sync(kAllLanes, bin);
  const unsigned lower = (1U << (threadIdx.x % kWarp)) - 1;
  if (bin >= 0 && (same & lower) == 0) atomicAdd(&bins[bin], __popc(same));
}

// The key at place kept - 1 of the ascending ones, a byte at a time.
__device__ Threshold select(const ExpertSlots& s, int kept, int* shared) {
  __shared__ int bins[kBins];
  __shared__ int found[2];  // the byte, and the place among keys that share it
  std::uint32_t prefix = 0, mask = 0;
  int place = kept - 1;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (threadIdx.x < kBins) bins[threadIdx.x] = 0;
    __syncthreads();
    for (int first = 0; first < s.count; first += kKeepThreads) {
      const int i = first + static_cast<int>(threadIdx.x);
      const std::uint32_t key = i < s.count ? s.key(i) : 0;
      const bool mine = i < s.count && (key & mask) == prefix;
      add_to_bins(bins, mine ? static_cast<int>(key >> shift & 255U) : -1);
    }
    __syncthreads();
    const int count = threadIdx.x < kBins ? bins[threadIdx.x] : 0;
    const int before = block_scan(count, shared).before;
    if (before <= place && place < before + count) {
      found[0] = static_cast<int>(threadIdx.x);
      found[1] = place - before;
    }
    __syncthreads();
    prefix |= static_cast<std::uint32_t>(found[0]) << shift;
    mask |= 255U << shift;
    place = found[1];
  }
  return {prefix, place + 1};
}

// A block an expert: drops what exceeds the capacity and numbers the rows.
__global__ void __launch_bounds__(kKeepThreads) keep_kernel(Plan a) {
  __shared__ int shared[kWarp];
  const int e = static_cast<int>(blockIdx.x);
  const std::int32_t begin = a.begins[e];
  const ExpertSlots s{a.sorted + begin, a.begins[e + 1] - begin, a.weights, a.K, a.by_position};
  const bool drops = s.count > a.capacity;
  const Threshold last = drops ? select(s, a.capacity, shared) : Threshold{0, 0};
  int smaller = 0, ties = 0;  // among the slots so far
  for (int first = 0; first < s.count; first += kKeepThreads) {
    const int i = first + static_cast<int>(threadIdx.x);
    const bool mine = i < s.count;
    const std::uint32_t key = mine && drops ? s.key(i) : 0;
    const bool is_smaller = mine && (!drops || key < last.key);
    const bool is_tie = mine && drops && key == last.key;
    // Both counts in one sum: at most kKeepThreads each.
    const Scan both = block_scan((is_tie ? 1 << 16 : 0) + (is_smaller ? 1 : 0), shared);
    const int ties_before = ties + (both.before >> 16);
    if (is_smaller || (is_tie && ties_before < last.ties)) {
      const int before = smaller + (both.before & 0xFFFF) + min(ties_before, last.ties);
      store_row(a, a.expert_offsets[e] + before, s.slots[i]);
    } else if (mine) {
      a.slot_row[s.slots[i]] = -1;
    }
    smaller += both.total & 0xFFFF;
    ties += both.total >> 16;
  }
}

}  // namespace

// ---- host ------------------------------------------------------------------------------------

void dispatch_plan(const Context& ctx, const ops::DispatchPlan& a) {
  const std::int64_t E = a.num_experts;
  const std::int64_t slots = a.ids.numel();
  const std::int64_t tiles = (slots + kTile - 1) / kTile;
  const bool drops = a.capacity > 0 && a.capacity < slots;
  const ScratchScope scope(ctx.scratch);
  const Plan p{.expert_offsets = a.expert_offsets.as<std::int32_t>(),
               .row_token = a.row_token.as<std::int32_t>(),
               .row_weight = a.row_weight.as<float>(),
               .slot_row = a.slot_row.as<std::int32_t>(),
               .ids = a.ids.as<std::int32_t>(),
               .weights = a.weights.as<float>(),
               .slots = slots,
               .E = static_cast<int>(E),
               .K = static_cast<int>(a.ids.shape[1]),
               .tiles = static_cast<int>(tiles),
               .capacity = drops ? static_cast<int>(a.capacity) : 0,
               .by_position = a.policy == ops::DropPolicy::position,
               .tile_counts = ctx.scratch->allocate<std::int32_t>(tiles * E),
               .begins = ctx.scratch->allocate<std::int32_t>(E + 1),
               .sorted = drops ? ctx.scratch->allocate<std::int32_t>(slots) : nullptr};
  const std::size_t shared = sizeof(std::uint16_t) * kTileWarps * static_cast<std::size_t>(E);
  const cudaStream_t stream = stream_of(ctx);
  launch(count_kernel, static_cast<unsigned>(tiles), kTileThreads, shared, stream, p);
  launch(sum_tiles_kernel, blocks_for(E, kScanExperts), kScanExperts * kScanParts, 0, stream, p);
  launch(sum_experts_kernel, 1, kExpertThreads, 0, stream, p);
  launch(place_kernel, static_cast<unsigned>(tiles), kTileThreads, shared, stream, p);
  if (drops) launch(keep_kernel, static_cast<unsigned>(E), kKeepThreads, 0, stream, p);
}

}  // namespace grist::cuda
