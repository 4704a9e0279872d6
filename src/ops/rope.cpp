#include "grist/ops/rope.h"

#include "operand.h"

namespace grist::ops {

void rope_table(const Context& ctx, const RopeTable& a) {
  constexpr const char* kOp = "rope_table";
  require_rank(kOp, "table", a.table, 2);
  require(kOp, "table", a.table, DType::f32, a.table.shape);
  GRIST_CHECK(a.table.shape[1] % 2 == 0, "{}: head width {} is odd", kOp, a.table.shape[1]);
  GRIST_CHECK(a.theta > 0.0, "{}: theta is {}", kOp, a.theta);
  GRIST_DISPATCH(rope_table, ctx, a);
}

void rope(const Context& ctx, const Rope& a) {
  constexpr const char* kOp = "rope";
  require_rank(kOp, "x", a.x, 3);
  require_rank(kOp, "table", a.table, 2);
  const std::int64_t Dh = a.x.shape[2];
  const DType A = require_activation(kOp, "x", ctx, a.x);
  require(kOp, "x", a.x, A, a.x.shape);
  require(kOp, "positions", a.positions, DType::i32, {a.x.shape[0]});
  require(kOp, "table", a.table, DType::f32, {a.table.shape[0], Dh});
  GRIST_CHECK(Dh % 2 == 0, "{}: head width {} is odd", kOp, Dh);
  GRIST_DISPATCH(rope, ctx, a);
}

}  // namespace grist::ops
