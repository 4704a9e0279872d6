// Dispatch plan, gather-sum, and rows on their way between ranks, CPU.
//
//   plan     N*K choices -> rows sorted by expert, stably in token order, after capacity dropping
//   gather   y[n] = sum_k w[n, k] * rows[slot_row[n, k]], or y[r] = x[index[r]]
//   regroup  (source, expert, token) -> (expert, source, token)
//
// Shapes    ids, weights, slot_row (N, K); expert_offsets (E+1); rows (R, D), R = N*K.
// Launch    plan: counting sort over fixed chunks of 1024 tokens (histogram, scan, scatter), then
//           one task an expert drops what exceeds its capacity and numbers the rows. gather: 16
//           tokens a task. regroup: a task a source.
// Numerics  the sum of a token runs over k ascending, from 0 (or from y), without fused
//           multiply-add: it depends on that token's rows alone.
// Traffic   gather: every kept row read once, y written once.
// See       kernels/cuda/dispatch.cu, tests tests/ops/dispatch_test.cpp,
//           tests/ops/exchange_rows_test.cpp.
#include <algorithm>

#include "grist/core/check.h"
#include "grist/core/memory.h"
#include "grist/ops/dispatch.h"
#include "kernels/backends.h"
#include "kernels/cpu/router_math.h"

namespace grist::cpu {
namespace {

constexpr std::int64_t kPlanChunk = 1024;  // tokens a task
constexpr std::int64_t kGatherChunk = 16;  // tokens a task

// A "slot" is a choice's position n * K + k; the sort orders slots.
struct Sorted {
  std::int32_t* slots;   // (N*K) by expert, ascending inside one
  std::int64_t* begins;  // (E+1)
};

// counts[chunk][e], then turned into the first position of the chunk's slots of e.
void count_slots(const Context& ctx, std::int64_t* counts, const ops::DispatchPlan& a) {
  const std::int64_t N = a.ids.shape[0];
  const std::int64_t K = a.ids.shape[1];
  const std::int64_t E = a.num_experts;
  const auto* ids = a.ids.as<std::int32_t>();
  const std::int64_t chunks = (N + kPlanChunk - 1) / kPlanChunk;
  parallel_for(ctx, chunks, [&](std::int64_t chunk, int /*worker*/) {
    std::int64_t* count = counts + chunk * E;
    std::fill_n(count, E, 0);
    const std::int64_t end = std::min(N, (chunk + 1) * kPlanChunk) * K;
    for (std::int64_t i = chunk * kPlanChunk * K; i < end; ++i) {
      GRIST_CHECK(0 <= ids[i] && ids[i] < E, "choice {} is expert {} of {}", i, ids[i], E);
      ++count[ids[i]];
    }
  });
}

Sorted sort_slots(const Context& ctx, const ops::DispatchPlan& a) {
  const std::int64_t N = a.ids.shape[0];
  const std::int64_t K = a.ids.shape[1];
  const std::int64_t E = a.num_experts;
  const auto* ids = a.ids.as<std::int32_t>();
  const std::int64_t chunks = (N + kPlanChunk - 1) / kPlanChunk;
  auto* next = ctx.scratch->allocate<std::int64_t>(chunks * E);
  const Sorted sorted{ctx.scratch->allocate<std::int32_t>(N * K),
                      ctx.scratch->allocate<std::int64_t>(E + 1)};
  count_slots(ctx, next, a);
  std::int64_t position = 0;
  for (std::int64_t e = 0; e < E; ++e) {
    sorted.begins[e] = position;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const std::int64_t count = next[chunk * E + e];
      next[chunk * E + e] = position;
      position += count;
    }
  }
  sorted.begins[E] = position;
  parallel_for(ctx, chunks, [&](std::int64_t chunk, int /*worker*/) {
    const std::int64_t end = std::min(N, (chunk + 1) * kPlanChunk) * K;
    for (std::int64_t i = chunk * kPlanChunk * K; i < end; ++i)
      sorted.slots[next[chunk * E + ids[i]]++] = static_cast<std::int32_t>(i);
  });
  return sorted;
}

// Keys order an expert's slots from the first it keeps to the last; no two are equal.
std::uint64_t keep_key(const ops::DispatchPlan& a, std::int32_t slot) {
  if (a.policy == ops::DropPolicy::position) {
    const auto choice = static_cast<std::uint32_t>(slot % a.ids.shape[1]);
    return (std::uint64_t{choice} << 32) | static_cast<std::uint32_t>(slot);
  }
  const std::uint32_t weight = row::order_key(a.weights.as<float>()[slot]);
  return (std::uint64_t{~weight} << 32) | static_cast<std::uint32_t>(slot);
}

// The key of the last slot kept; `keys` has a place for every slot.
std::uint64_t last_kept(const ops::DispatchPlan& a, const Sorted& sorted, std::int64_t e,
                        std::uint64_t* keys) {
  const std::int64_t count = sorted.begins[e + 1] - sorted.begins[e];
  if (a.capacity == 0 || count <= a.capacity) return ~std::uint64_t{0};
  std::uint64_t* own = keys + sorted.begins[e];
  for (std::int64_t i = 0; i < count; ++i) own[i] = keep_key(a, sorted.slots[sorted.begins[e] + i]);
  std::nth_element(own, own + a.capacity - 1, own + count);
  return own[a.capacity - 1];
}

}  // namespace

void dispatch_plan(const Context& ctx, const ops::DispatchPlan& a) {
  const std::int64_t K = a.ids.shape[1];
  const std::int64_t E = a.num_experts;
  const auto* weights = a.weights.as<float>();
  auto* offsets = a.expert_offsets.as<std::int32_t>();
  auto* row_token = a.row_token.as<std::int32_t>();
  auto* row_weight = a.row_weight.as<float>();
  auto* slot_row = a.slot_row.as<std::int32_t>();
  const ScratchScope scope(ctx.scratch);
  const Sorted sorted = sort_slots(ctx, a);
  auto* keys = a.capacity > 0 ? ctx.scratch->allocate<std::uint64_t>(sorted.begins[E]) : nullptr;

  offsets[0] = 0;
  for (std::int64_t e = 0; e < E; ++e) {
    const std::int64_t count = sorted.begins[e + 1] - sorted.begins[e];
    const std::int64_t kept = a.capacity > 0 ? std::min(count, a.capacity) : count;
    offsets[e + 1] = offsets[e] + static_cast<std::int32_t>(kept);
  }
  parallel_for(ctx, E, [&](std::int64_t e, int /*worker*/) {
    const std::uint64_t last = last_kept(a, sorted, e, keys);
    const bool drops = last != ~std::uint64_t{0};
    std::int32_t next = offsets[e];
    for (std::int64_t i = sorted.begins[e]; i < sorted.begins[e + 1]; ++i) {
      const std::int32_t slot = sorted.slots[i];
      if (drops && keep_key(a, slot) > last) {
        slot_row[slot] = -1;
        continue;
      }
      row_token[next] = static_cast<std::int32_t>(slot / K);
      row_weight[next] = weights[slot];
      slot_row[slot] = next++;
    }
  });
}

// ---- gather-sum ------------------------------------------------------------------------------

namespace {

constexpr int kBlock = 64;  // columns summed over all choices at once: four cache lines of each row

struct TokenSum {
  float* y;                   // (D)
  const float* rows;          // (R, D)
  const std::int32_t* slots;  // (K)
  const float* weights;       // (K), or null
  std::int64_t D, K;
};

// Columns [d, d + width): the rows of all choices are read side by side, which keeps more of their
// cache misses under way than one row after another.
inline void sum_columns(const TokenSum& t, std::int64_t d, int width, bool accumulate) {
  float sum[kBlock] = {};
  if (accumulate) std::copy_n(t.y + d, width, sum);
  for (std::int64_t k = 0; k < t.K; ++k) {
    const std::int32_t slot = t.slots[k];
    if (slot < 0) continue;
    const float* x = t.rows + slot * t.D + d;
    if (t.weights == nullptr) {
      for (int i = 0; i < width; ++i) sum[i] += x[i];
    } else {
      const float w = t.weights[k];
      for (int i = 0; i < width; ++i) sum[i] += w * x[i];
    }
  }
  std::copy_n(sum, width, t.y + d);
}

}  // namespace

void gather_sum(const Context& ctx, const ops::GatherSum& a) {
  const std::int64_t N = a.y.shape[0];
  const std::int64_t D = a.y.shape[1];
  const std::int64_t K = a.slot_row.shape[1];
  const auto* rows = a.rows.as<float>();
  const auto* slots = a.slot_row.as<std::int32_t>();
  const float* weights = a.weights ? a.weights.as<float>() : nullptr;
  auto* y = a.y.as<float>();
  const std::int64_t chunks = (N + kGatherChunk - 1) / kGatherChunk;
  parallel_for(ctx, chunks, [&](std::int64_t chunk, int /*worker*/) {
    const std::int64_t end = std::min(N, (chunk + 1) * kGatherChunk);
    for (std::int64_t n = chunk * kGatherChunk; n < end; ++n) {
      const TokenSum t{y + n * D, rows, slots + n * K, weights ? weights + n * K : nullptr, D, K};
      std::int64_t d = 0;
      for (; d + kBlock <= D; d += kBlock) sum_columns(t, d, kBlock, a.accumulate);
      sum_columns(t, d, static_cast<int>(D - d), a.accumulate);
    }
  });
}

// ---- rows between ranks ----------------------------------------------------------------------

void gather_rows(const Context& ctx, const ops::GatherRows& a) {
  const std::int64_t R = a.y.shape[0];
  const std::int64_t D = a.y.shape[1];
  const std::int64_t N = a.x.shape[0];
  const auto* x = a.x.as<float>();
  const auto* index = a.index.as<std::int32_t>();
  auto* y = a.y.as<float>();
  const std::int64_t rows_a_task = std::max(kGatherChunk, std::int64_t{16384} / D);
  parallel_for(ctx, (R + rows_a_task - 1) / rows_a_task, [&](std::int64_t task, int /*worker*/) {
    const std::int64_t end = std::min(R, (task + 1) * rows_a_task);
    for (std::int64_t r = task * rows_a_task; r < end; ++r) {
      GRIST_CHECK(0 <= index[r] && index[r] < N, "row {} is row {} of {}", r, index[r], N);
      std::copy_n(x + index[r] * D, D, y + r * D);
    }
  });
}

void regroup_plan(const Context& ctx, const ops::RegroupPlan& a) {
  const std::int64_t S = a.counts.shape[0];
  const std::int64_t E = a.counts.shape[1];
  const auto* counts = a.counts.as<std::int32_t>();
  auto* expert_offsets = a.expert_offsets.as<std::int32_t>();
  auto* source_offsets = a.source_offsets.as<std::int32_t>();
  auto* row_received = a.row_received.as<std::int32_t>();
  auto* received_row = a.received_row.as<std::int32_t>();
  std::int64_t grouped = 0;
  source_offsets[0] = expert_offsets[0] = 0;
  for (std::int64_t e = 0; e < E; ++e) {
    for (std::int64_t s = 0; s < S; ++s) {
      const std::int32_t count = counts[s * E + e];
      GRIST_CHECK(count >= 0 && grouped + count <= a.row_received.shape[0],
                  "{} rows of expert {} from source {} after {}, room for {}", count, e, s, grouped,
                  a.row_received.shape[0]);
      grouped += count;
      source_offsets[e * S + s + 1] = static_cast<std::int32_t>(grouped);
    }
    expert_offsets[e + 1] = static_cast<std::int32_t>(grouped);
  }
  parallel_for(ctx, S, [&](std::int64_t s, int /*worker*/) {
    std::int32_t received = 0;
    for (std::int64_t i = 0; i < s * E; ++i) received += counts[i];
    for (std::int64_t e = 0; e < E; ++e) {
      const std::int32_t end = source_offsets[e * S + s + 1];
      for (std::int32_t r = source_offsets[e * S + s]; r < end; ++r, ++received) {
        row_received[r] = received;
        received_row[received] = r;
      }
    }
  });
}

}  // namespace grist::cpu
