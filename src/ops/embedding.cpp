#include "grist/ops/embedding.h"

#include "operand.h"

namespace grist::ops {

void embedding_forward(const Context& ctx, const EmbeddingForward& a) {
  require_rank("embedding_forward", "table", a.table, 2);
  require_rank("embedding_forward", "ids", a.ids, 1);
  const std::int64_t N = a.ids.shape[0];
  const std::int64_t D = a.table.shape[1];
  require("embedding_forward", "table", a.table, DType::f32, a.table.shape);
  require("embedding_forward", "ids", a.ids, DType::i32, {N});
  const DType A = require_activation("embedding_forward", "y", ctx, a.y);
  require("embedding_forward", "y", a.y, A, {N, D});
  if (N * D == 0) return;
  GRIST_DISPATCH(embedding_forward, ctx, a);
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& a) {
  require_rank("embedding_backward", "dtable", a.dtable, 2);
  require_rank("embedding_backward", "ids", a.ids, 1);
  const std::int64_t N = a.ids.shape[0];
  const std::int64_t D = a.dtable.shape[1];
  require("embedding_backward", "dtable", a.dtable, DType::f32, a.dtable.shape);
  require("embedding_backward", "ids", a.ids, DType::i32, {N});
  const DType A = require_activation("embedding_backward", "dy", ctx, a.dy);
  require("embedding_backward", "dy", a.dy, A, {N, D});
  require_scratch("embedding_backward", ctx);
  if (N * D == 0) return;
  GRIST_DISPATCH(embedding_backward, ctx, a);
}

}  // namespace grist::ops
