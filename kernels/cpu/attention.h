#pragma once
// Private to attention: how the work is cut into tasks and tiles. A task is a part of one document
// for one key/value head and the query heads that read it; it goes through tiles of kQueryBlock
// queries and kKeyBlock keys. How tasks are cut never changes a bit: keys are always visited in
// blocks counted from the document's first key, in ascending order, and so are queries.
#include <algorithm>
#include <cstdint>
#include <span>

#include "grist/core/context.h"
#include "grist/core/tensor.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul.h"

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

// ---- tiles ------------------------------------------------------------------------------------

inline constexpr std::int64_t kQueryBlock = 28;  // rows of a tile: two register tiles of 14
inline constexpr std::int64_t kKeyBlock = 128;   // columns; part of the forward result's definition
inline constexpr std::int64_t kKeySpan = 512;    // keys packed at a time
inline constexpr std::int64_t kScoreFloats = kQueryBlock * kRowStride;  // of a tile of scores
static_assert(kKeyBlock <= kDepthBlock && kKeyBlock % kPanelColumns == 0);
static_assert(kKeySpan % kKeyBlock == 0);

// The tile of a query block and a key block.
struct ScoreTile {
  std::int64_t query, rows;  // the document's query of row 0; rows <= kQueryBlock
  std::int64_t key, cols;    // the document's key of column 0; columns that some row sees
  std::int64_t packed;       // keys of the whole key block: the depth of its V and K panels

  std::int64_t width() const { return (cols + 15) / 16 * 16; }  // whole vectors
  // How many columns row r sees.
  std::int64_t seen(const AttentionTask& t, std::int64_t r) const {
    return std::clamp<std::int64_t>(t.visible(query + r) - key, 0, cols);
  }
};

// Calls visit(tile) for each key block of [span[0], span[1]) that the query block sees.
template <class Visit>
void for_key_blocks(const AttentionTask& t, std::int64_t query, std::int64_t rows,
                    const std::int64_t (&span)[2], const Visit& visit) {
  const std::int64_t seen = std::min(span[1], t.visible(query + rows - 1));
  for (std::int64_t key = span[0]; key < seen; key += kKeyBlock) {
    visit(ScoreTile{.query = query,
                    .rows = rows,
                    .key = key,
                    .cols = std::min(kKeyBlock, seen - key),
                    .packed = std::min(kKeyBlock, span[1] - key)});
  }
}

// Vectors of one head: row i at data + i * stride.
template <class T> struct Head {
  T* data;
  std::int64_t stride;
  T* operator[](std::int64_t i) const { return data + i * stride; }
  Head from(std::int64_t i) const { return {data + i * stride, stride}; }
};
template <class T> Head<T> head_of(T* data, const Shape& shape, std::int64_t head) {
  return {data + head * shape[2], shape[1] * shape[2]};
}

// Rows of a query block times scale, laid out for multiply_rows: kDepthBlock columns at a time.
std::int64_t copied_floats(std::int64_t Dh);
void copy_rows(float* out, const Head<const float>& from, std::int64_t rows, std::int64_t Dh,
               float scale);

// Panels of a span's transposed rows: a column a key, depth Dh. Like pack_panels_transposed, with
// vector shuffles: keys are packed again and again, weights once a step.
void pack_key_columns(float* out, const Head<const float>& x, const std::int64_t (&span)[2],
                      std::int64_t Dh);
// Panels of a span's rows, each key block packed by itself: depth is its keys. The panels of the
// key block at `key`, counted from the span's first key, begin at block_offset.
std::int64_t block_offset(std::int64_t key, std::int64_t Dh);
void pack_key_blocks(float* out, const Head<const float>& x, const std::int64_t (&span)[2],
                     std::int64_t Dh);

// c = rows columns^T for a tile: `rows` from copy_rows; `columns` are a span's panels of depth Dh.
// Writes whole panels of columns: up to 31 more than the tile has.
struct ScoreMultiply {
  float* c;  // kRowStride floats between rows
  const float* rows;
  const float* columns;
  std::int64_t span_begin, Dh;
};
void multiply_scores(const ScoreMultiply& m, const ScoreTile& tile);

// Largest value and sum of each row of a tile of scores, over cols columns, a multiple of 16. Lanes
// of sixteen rows are turned so that the rows' trees are walked together; bits as vector_math.h's.
// A NaN may hide from the maximum, not from the sum.
void row_maxima(float* out, const float* scores, std::int64_t rows, std::int64_t cols);
void row_sums(float* out, const float* scores, std::int64_t rows, std::int64_t cols);

}  // namespace grist::cpu
