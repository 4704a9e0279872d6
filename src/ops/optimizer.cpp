#include "grist/ops/optimizer.h"

#include <cmath>

#include "operand.h"

namespace grist::ops {

namespace {

std::int64_t require_vector(const char* op, const char* operand, const ConstTensorView& v) {
  require_rank(op, operand, v, 1);
  require(op, operand, v, DType::f32, v.shape);
  return v.shape[0];
}

}  // namespace

void adamw(const Context& ctx, const AdamW& a) {
  const std::int64_t n = require_vector("adamw", "param", a.param);
  require("adamw", "m", a.m, DType::f32, {n});
  require("adamw", "v", a.v, DType::f32, {n});
  require("adamw", "grad", a.grad, DType::f32, {n});
  require("adamw", "control", a.control, DType::f32, {2});
  GRIST_CHECK(a.step >= 1, "adamw: step {}", a.step);
  GRIST_CHECK(0 <= a.beta1 && a.beta1 < 1 && 0 <= a.beta2 && a.beta2 < 1, "adamw: betas {}, {}",
              a.beta1, a.beta2);
  if (n == 0) return;
  GRIST_DISPATCH(adamw, ctx, a);
}

void squared_sums(const Context& ctx, const SquaredSums& a) {
  require_rank("squared_sums", "partials", a.partials, 1);
  const std::int64_t C = a.partials.shape[0];
  require("squared_sums", "partials", a.partials, DType::f64, {C});
  require("squared_sums", "chunks", a.chunks, DType::i64, {C, 2});
  if (C == 0) return;
  GRIST_DISPATCH(squared_sums, ctx, a);
}

void tree_sum(const Context& ctx, const TreeSum& a) {
  require_rank("tree_sum", "partials", a.partials, 1);
  require("tree_sum", "partials", a.partials, DType::f64, a.partials.shape);
  require("tree_sum", "sum", a.sum, DType::f64, {1});
  GRIST_DISPATCH(tree_sum, ctx, a);
}

void sum(const Context& ctx, const Sum& a) {
  require_vector("sum", "x", a.x);
  require("sum", "sum", a.sum, DType::f64, {1});
  require_scratch("sum", ctx);
  GRIST_DISPATCH(sum, ctx, a);
}

void normal_init(const Context& ctx, const NormalInit& a) {
  const std::int64_t n = require_vector("normal_init", "x", a.x);
  GRIST_CHECK(std::isfinite(a.std) && a.std >= 0, "normal_init: std {}", a.std);
  GRIST_CHECK(fits(a.part, a.shape) && a.part.size() == n,
              "normal_init: elements [{}, {}) of {} for {}", a.part.begin, a.part.end,
              a.shape.str(), n);
  if (n == 0) return;
  GRIST_DISPATCH(normal_init, ctx, a);
}

void fill(const Context& ctx, const Fill& a) {
  if (require_vector("fill", "x", a.x) == 0) return;
  GRIST_DISPATCH(fill, ctx, a);
}

void tree_add(const Context& ctx, const TreeAdd& a) {
  const std::int64_t n = require_vector("tree_add", "sum", a.sum);
  require_rank("tree_add", "parts", a.parts, 2);
  require("tree_add", "parts", a.parts, DType::f32, {a.parts.shape[0], n});
  GRIST_CHECK(a.parts.shape[0] >= 1, "tree_add: no parts");
  if (n == 0) return;
  GRIST_DISPATCH(tree_add, ctx, a);
}

void add(const Context& ctx, const Add& a) {
  const std::int64_t n = require_vector("add", "y", a.y);
  require("add", "x", a.x, DType::f32, {n});
  if (n == 0) return;
  GRIST_DISPATCH(add, ctx, a);
}

}  // namespace grist::ops
