#pragma once
// Private to attention: how the work is cut into tasks. A task is a part of one document for one
// key/value head and the query heads that read it. Which cut is taken never changes a bit: keys
// are always visited in blocks counted from the document's first key, in ascending order, and so
// are queries.
#include <algorithm>
#include <cstdint>
#include <span>

#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::cpu {

struct AttentionTask {
  std::int64_t first_query = 0, first_key = 0;  // rows of the document's first ones
  std::int64_t num_queries = 0, num_keys = 0;   // of the document
  std::int64_t kv_head = 0;
  std::int64_t query_begin = 0, query_end = 0;  // of the document's queries: the task's part
  std::int64_t key_begin = 0, key_end = 0;
  bool dq = false, dkv = false;  // backward: which gradients the task makes

  // How many keys, from the first on, query i of the document sees.
  std::int64_t visible(std::int64_t i) const {
    return std::clamp<std::int64_t>(i + 1 + num_keys - num_queries, 0, num_keys);
  }
  // Proportional to the (query, key) pairs to visit.
  std::int64_t cost() const;
};

struct AttentionShape {
  ConstTensorView cu_seqlens_q, cu_seqlens_k;  // validated here
  std::int64_t Nq = 0, Nk = 0, Hkv = 0;
};

// Largest tasks first, in memory of ctx.scratch: the caller holds a ScratchScope.
std::span<const AttentionTask> plan_attention_forward(const Context& ctx, const AttentionShape& s);
// One task makes all three gradients of a document and head where that gives the threads equal
// work; otherwise dq and (dk, dv) are separate tasks over parts of documents, which computes the
// scores twice.
std::span<const AttentionTask> plan_attention_backward(const Context& ctx, const AttentionShape& s);

}  // namespace grist::cpu
