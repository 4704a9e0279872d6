// Token embedding, CPU.
//
//   forward    y[n] = table[ids[n]]
//   backward   dtable[ids[n]] += dy[n], n ascending
//
// Shapes    table (V, D), ids (N), y and dy (N, D); f32.
// Launch    forward: 64 tokens a task. Backward gives each task a slice of 64 columns and all
//           tokens: rows of one token are added in ascending n by one writer, whatever the number
//           of threads.
// Numerics  fp32; every sum in ascending n from the old value.
// Traffic   forward: a row read and one written a token. Backward: dy once, a row of dtable read
//           and written a token.
// See       kernels/cuda/embedding.cu, test tests/ops/embedding_test.cpp.
#include <algorithm>

#include "grist/core/check.h"
#include "grist/ops/embedding.h"
#include "kernels/backends.h"

namespace grist::cpu {
namespace {

constexpr std::int64_t kTokens = 64;   // a task of the forward pass
constexpr std::int64_t kColumns = 64;  // a task of the backward pass: four cache lines of a row

void check_id(std::int64_t n, std::int32_t id, std::int64_t V) {
  GRIST_CHECK(0 <= id && id < V, "token {} has id {}, the table has {} rows", n, id, V);
}

void add_columns(float* __restrict y, const float* __restrict x, std::int64_t width) {
  if (width == kColumns) {
    for (int i = 0; i < kColumns; ++i) y[i] += x[i];
  } else {
    for (std::int64_t i = 0; i < width; ++i) y[i] += x[i];
  }
}

}  // namespace

void embedding_forward(const Context& ctx, const ops::EmbeddingForward& a) {
  const std::int64_t N = a.ids.shape[0];
  const std::int64_t V = a.table.shape[0];
  const std::int64_t D = a.table.shape[1];
  const auto* ids = a.ids.as<std::int32_t>();
  const auto* table = a.table.as<float>();
  auto* y = a.y.as<float>();
  parallel_for(ctx, (N + kTokens - 1) / kTokens, [&](std::int64_t task, int /*worker*/) {
    const std::int64_t end = std::min(N, (task + 1) * kTokens);
    for (std::int64_t n = task * kTokens; n < end; ++n) {
      check_id(n, ids[n], V);
      std::copy_n(table + ids[n] * D, D, y + n * D);
    }
  });
}

void embedding_backward(const Context& ctx, const ops::EmbeddingBackward& a) {
  const std::int64_t N = a.ids.shape[0];
  const std::int64_t V = a.dtable.shape[0];
  const std::int64_t D = a.dtable.shape[1];
  const auto* ids = a.ids.as<std::int32_t>();
  const auto* dy = a.dy.as<float>();
  auto* dtable = a.dtable.as<float>();
  for (std::int64_t n = 0; n < N; ++n) check_id(n, ids[n], V);
  parallel_for(ctx, (D + kColumns - 1) / kColumns, [&](std::int64_t task, int /*worker*/) {
    const std::int64_t begin = task * kColumns;
    const std::int64_t width = std::min(kColumns, D - begin);
    for (std::int64_t n = 0; n < N; ++n)
      add_columns(dtable + ids[n] * D + begin, dy + n * D + begin, width);
  });
}

}  // namespace grist::cpu
