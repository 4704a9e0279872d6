#pragma once
// Causal grouped-query attention over packed documents, online softmax in blocks (Milakov &
// Gimelshein 2018; FlashAttention-2), never a (Nq, Nk) matrix. Query head h reads key/value head h
// / (H/Hkv). Document s owns queries [cu_seqlens_q[s], cu_seqlens_q[s+1]) and keys likewise; query
// i of a document of q queries and n keys sees its keys j <= i + n - q (so decoding with a cache is
// q = 1). Empty documents are legal. A query that sees no key gets 0 and lse = -inf.
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

struct AttentionForward {
  TensorView o;       // out (Nq, H, Dh)
  TensorView lse;     // out (Nq, H) f32: log of the sum of exp(scores); kept for backward
  ConstTensorView q;  // in  (Nq, H, Dh)
  ConstTensorView k;  // in  (Nk, Hkv, Dh)
  ConstTensorView v;  // in  (Nk, Hkv, Dh)
  ConstTensorView cu_seqlens_q;  // in  (S+1) i32
  ConstTensorView cu_seqlens_k;  // in  (S+1) i32
  float scale = 1.0F;            // usually Dh^-0.5
};
void attention_forward(const Context& ctx, const AttentionForward& a);  // needs ctx.scratch

struct AttentionBackward {
  TensorView dq;                 // out (Nq, H, Dh)
  TensorView dk;                 // out (Nk, Hkv, Dh)
  TensorView dv;                 // out (Nk, Hkv, Dh)
  ConstTensorView do_;           // in  (Nq, H, Dh)
  ConstTensorView o;             // in  (Nq, H, Dh)
  ConstTensorView lse;           // in  (Nq, H) f32
  ConstTensorView q;             // in
  ConstTensorView k;             // in
  ConstTensorView v;             // in
  ConstTensorView cu_seqlens_q;  // in  (S+1) i32
  ConstTensorView cu_seqlens_k;  // in  (S+1) i32
  float scale = 1.0F;
};
void attention_backward(const Context& ctx, const AttentionBackward& a);  // needs ctx.scratch

}  // namespace grist::ops
