// Attention, CPU: the list of tasks.
//
// Shapes    cu_seqlens (S+1) of queries and of keys; they are checked here.
// Launch    documents and key/value heads, cut along queries (or keys, backward) where workers
//           would wait for the largest; largest first.
// Numerics  none: the cut changes no bit (attention.h).
// Traffic   none to speak of.
// See       kernels/cpu/attention.h, test tests/ops/attention_test.cpp.
#include <tuple>

#include "grist/core/check.h"
#include "grist/core/memory.h"
#include "kernels/cpu/attention.h"

namespace grist::cpu {
namespace {

constexpr std::int64_t kMinPart = 256;       // rows; smaller parts pack the other side too often
constexpr std::int64_t kTasksPerWorker = 4;  // enough to even out causal parts

void check_boundaries(const char* name, const ConstTensorView& view, std::int64_t rows) {
  const auto* cu = view.as<std::int32_t>();
  const std::int64_t last = view.shape[0] - 1;
  GRIST_CHECK(cu[0] == 0 && cu[last] == rows, "{} goes from {} to {}, want 0 to {}", name, cu[0],
              cu[last], rows);
  for (std::int64_t s = 0; s < last; ++s)
    GRIST_CHECK(cu[s] <= cu[s + 1], "{} falls from {} to {}", name, cu[s], cu[s + 1]);
}

std::int64_t parts_of(std::int64_t rows, std::int64_t part) {
  return (rows + part - 1) / part;
}

// Whole documents, one task a key/value head.
std::span<AttentionTask> whole_documents(const Context& ctx, const AttentionShape& s) {
  check_boundaries("cu_seqlens_q", s.cu_seqlens_q, s.Nq);
  check_boundaries("cu_seqlens_k", s.cu_seqlens_k, s.Nk);
  const auto* cu_q = s.cu_seqlens_q.as<std::int32_t>();
  const auto* cu_k = s.cu_seqlens_k.as<std::int32_t>();
  const std::int64_t documents = s.cu_seqlens_q.shape[0] - 1;
  auto* tasks = ctx.scratch->allocate<AttentionTask>(documents * s.Hkv);
  std::size_t count = 0;
  for (std::int64_t d = 0; d < documents; ++d) {
    const std::int64_t q = cu_q[d + 1] - cu_q[d];
    const std::int64_t k = cu_k[d + 1] - cu_k[d];
    if (q == 0 && k == 0) continue;
    for (std::int64_t head = 0; head < s.Hkv; ++head) {
      tasks[count++] = {.first_query = cu_q[d],
                        .first_key = cu_k[d],
                        .num_queries = q,
                        .num_keys = k,
                        .kv_head = head,
                        .query_begin = 0,
                        .query_end = q,
                        .key_begin = 0,
                        .key_end = k,
                        .dq = true,
                        .dkv = true};
    }
  }
  return {tasks, count};
}

std::int64_t part_rows(const Context& ctx, std::int64_t rows) {
  const std::int64_t wanted = rows / (kTasksPerWorker * ctx.num_workers());
  return std::max(kMinPart, parts_of(wanted, kMinPart) * kMinPart);
}

// Appends the parts of `whole` along its queries, or along its keys.
std::size_t split(AttentionTask* out, const AttentionTask& whole, bool by_query,
                  std::int64_t part) {
  std::size_t count = 0;
  const std::int64_t rows = by_query ? whole.num_queries : whole.num_keys;
  for (std::int64_t begin = 0; begin < rows; begin += part) {
    AttentionTask t = whole;
    (by_query ? t.query_begin : t.key_begin) = begin;
    (by_query ? t.query_end : t.key_end) = std::min(rows, begin + part);
    t.dq = by_query;
    t.dkv = !by_query;
    out[count++] = t;
  }
  return count;
}

std::span<const AttentionTask> largest_first(std::span<AttentionTask> tasks) {
  std::sort(tasks.begin(), tasks.end(),
            [](const AttentionTask& x, const AttentionTask& y) { return x.cost() > y.cost(); });
  return tasks;
}

}  // namespace

std::int64_t AttentionTask::cost() const {
  if (query_begin == query_end) return key_end - key_begin;
  // Keys seen grow by one a query: the mean of the first and the last, cut to the task's keys.
  const auto seen = [this](std::int64_t i) {
    return std::clamp<std::int64_t>(visible(i) - key_begin, 0, key_end - key_begin);
  };
  return (query_end - query_begin) * (1 + (seen(query_begin) + seen(query_end - 1)) / 2);
}

std::span<const AttentionTask> plan_attention_forward(const Context& ctx, const AttentionShape& s) {
  const std::span<const AttentionTask> whole = whole_documents(ctx, s);
  const std::int64_t part = part_rows(ctx, s.Nq * s.Hkv);
  std::int64_t most = 0;
  for (const AttentionTask& t : whole) most += parts_of(t.num_queries, part);
  auto* tasks = ctx.scratch->allocate<AttentionTask>(most);
  std::size_t count = 0;
  for (const AttentionTask& t : whole) count += split(tasks + count, t, true, part);
  return largest_first({tasks, count});
}

std::span<const AttentionTask> plan_attention_backward(const Context& ctx,
                                                       const AttentionShape& s) {
  const std::span<AttentionTask> whole = whole_documents(ctx, s);
  const std::int64_t workers = ctx.num_workers();
  std::int64_t total = 0, largest = 0;
  for (const AttentionTask& t : whole) {
    total += t.cost();
    largest = std::max(largest, t.cost());
  }
  // Seven products instead of five pay when the largest task would keep the others waiting longer.
  if (workers * largest * 5 <= total * 7) return largest_first(whole);
  const std::int64_t query_part = part_rows(ctx, s.Nq * s.Hkv);
  const std::int64_t key_part = part_rows(ctx, s.Nk * s.Hkv);
  std::int64_t most = 0;
  for (const AttentionTask& t : whole)
    most += parts_of(t.num_queries, query_part) + parts_of(t.num_keys, key_part);
  auto* tasks = ctx.scratch->allocate<AttentionTask>(most);
  std::size_t count = 0;
  for (const AttentionTask& t : whole) {
    count += split(tasks + count, t, true, query_part);
    count += split(tasks + count, t, false, key_part);
  }
  return largest_first({tasks, count});
}

}  // namespace grist::cpu
