#include "grist/ops/attention.h"

#include "operand.h"

namespace grist::ops {
namespace {

struct Inputs {
  ConstTensorView q, k, v, cu_seqlens_q, cu_seqlens_k;
};

// Returns the dtype of activations.
DType require_inputs(const char* op, const Context& ctx, const Inputs& in) {
  require_rank(op, "q", in.q, 3);
  require_rank(op, "k", in.k, 3);
  require_rank(op, "cu_seqlens_q", in.cu_seqlens_q, 1);
  const std::int64_t Nk = in.k.shape[0];
  const std::int64_t H = in.q.shape[1];
  const std::int64_t Hkv = in.k.shape[1];
  const std::int64_t Dh = in.q.shape[2];
  const DType A = require_activation(op, "q", ctx, in.q);
  require(op, "k", in.k, A, {Nk, Hkv, Dh});
  require(op, "v", in.v, A, {Nk, Hkv, Dh});
  require(op, "cu_seqlens_q", in.cu_seqlens_q, DType::i32, in.cu_seqlens_q.shape);
  require(op, "cu_seqlens_k", in.cu_seqlens_k, DType::i32, in.cu_seqlens_q.shape);
  GRIST_CHECK(in.cu_seqlens_q.shape[0] >= 1, "{}: cu_seqlens is empty, it starts with 0", op);
  GRIST_CHECK(Hkv > 0 && H > 0 && H % Hkv == 0,
              "{}: {} query heads are not a multiple of {} key/value heads", op, H, Hkv);
  GRIST_CHECK(Dh > 0, "{}: heads without elements", op);
  return A;
}

}  // namespace

void attention_forward(const Context& ctx, const AttentionForward& a) {
  constexpr const char* kOp = "attention_forward";
  const DType A = require_inputs(kOp, ctx, {a.q, a.k, a.v, a.cu_seqlens_q, a.cu_seqlens_k});
  require(kOp, "o", a.o, A, a.q.shape);
  require(kOp, "lse", a.lse, DType::f32, {a.q.shape[0], a.q.shape[1]});
  require_scratch(kOp, ctx);
  GRIST_DISPATCH(attention_forward, ctx, a);
}

void attention_backward(const Context& ctx, const AttentionBackward& a) {
  constexpr const char* kOp = "attention_backward";
  const DType A = require_inputs(kOp, ctx, {a.q, a.k, a.v, a.cu_seqlens_q, a.cu_seqlens_k});
  require(kOp, "dq", a.dq, A, a.q.shape);
  require(kOp, "dk", a.dk, A, a.k.shape);
  require(kOp, "dv", a.dv, A, a.k.shape);
  require(kOp, "do", a.do_, A, a.q.shape);
  require(kOp, "o", a.o, A, a.q.shape);
  require(kOp, "lse", a.lse, DType::f32, {a.q.shape[0], a.q.shape[1]});
  require_scratch(kOp, ctx);
  GRIST_DISPATCH(attention_backward, ctx, a);
}

}  // namespace grist::ops
