#pragma once
// Memory for the activations of one micro-batch, laid out once. What a layer keeps for its backward
// pass depends on `recompute`:
//
// none: everything backward reads.
//
// selective: all but the outputs of both norms and the up-projections z, which are large and cheap
// to make again.
//
// full: a layer's input and its routing; the rest is made again.
//
// Routing (choices, weights, plan) is always kept: it is decided once, recomputation reuses it and
// cannot flip an expert.
//
// With experts on other ranks, what their rows need (x as received, z, workspaces) lies in the
// ExpertExchange, because only the exchanged counts tell how many come.
#include <memory>
#include <vector>

#include "grist/config/config.h"
#include "grist/core/context.h"
#include "grist/core/uploads.h"
#include "grist/nn/expert_exchange.h"

namespace grist::nn {

enum class Keep : std::uint8_t {
  nothing,
  layer_inputs,
  all_but_large,
  everything
};  // evaluation; full; selective; none
Keep keep_for(const TrainConfig& train);

// Of activations and of the matrices' compute weights: what `precision` says; auto is fp32 on the
// CPU and bf16 on CUDA. Routing, norms' and routers' weights, statistics and gradients of weights
// are always fp32 or more.
DType activation_dtype(const Config& config, Device device);

// Views of one layer's activations; layers share what is not kept. Matrices of (N, D), (N, H, Dh),
// (R, 2F) and so on have the dtype of activations, one value a row or a choice is f32 unless said.
struct LayerActivations {
  TensorView h_in, rstd_in, n_in;  // (N, D), (N), (N, D): residual stream at the input and its norm
  TensorView q_raw, k_raw, q_rstd, k_rstd;  // qk_norm only: before the norm; (N*H), (N*Hkv)
  TensorView q, k, v;                       // (N, H, Dh), (N, Hkv, Dh): as attention reads them
  TensorView o, lse;                        // (N, H, Dh), (N, H)
  TensorView h_mid, rstd_mid, n_mid;        // after attention
  TensorView z;                             // dense: (N, 2F); MoE: (R, 2F), experts here only
  TensorView shared_z;                      // (N, 2Fs)
  TensorView logits, ids, weights;          // (N, E), (N, K) i32, (N, K)
  TensorView expert_offsets, row_token, row_weight, slot_row;  // ops/dispatch.h
  TensorView counts, prob_sums, fractions, scalars;            // ops/router.h; S segments
};

// Temporaries that live within one layer's forward or backward.
struct Workspace {
  TensorView a;                // (R, F) or (N, F): activated; in backward the weighted one
  TensorView shared_a;         // (N, Fs)
  TensorView rows;             // (R, D): expert outputs; in backward the input gradients; with an
                               // exchange also the rows that leave
  TensorView out;              // (N, D): output of attention or FFN
  TensorView dz, shared_dz;    // as z
  TensorView da;               // (N, max(F, Fs)): dense FFN and shared expert
  TensorView drow_weight;      // (R)
  TensorView dlogits;          // (N, E)
  TensorView dh, dn;           // (N, D)
  TensorView dq, dk, dv, d_o;  // as q, k, v, o
};

class Activations {
 public:
  // N tokens in B sequences (B segments for sequence-scope balancing, else one). `exchange`, made
  // for as many tokens and the same `keep`: some experts are on other ranks; null: all are here.
  // `dtype`: activation_dtype().
  Activations(const ModelConfig& config, std::int64_t tokens, std::int64_t sequences, Keep keep,
              Device device, MemoryLedger* ledger,
              std::unique_ptr<ExpertExchange> exchange = nullptr, DType dtype = DType::f32);

  std::int64_t tokens() const { return tokens_; }
  Keep keep() const { return keep_; }
  ExpertExchange* exchange() const { return exchange_.get(); }
  std::vector<LayerActivations> layers;
  Workspace work;
  TensorView h_final, rstd_final, n_final;  // (N, D), (N), (N, D)
  TensorView dn_final;                      // (N, D)
  TensorView losses;                        // (N) f32
  TensorView loss_sum;                      // (1) f64
  TensorView head_z, head_z_sum;  // (N) f32, (1) f64: z-loss of the output logits, where trained
  // The memory of all that the host wants to know of a micro-batch, these sums and the layers' own:
  // (bytes / 8) i64, one stretch and so one copy. Empty for evaluation.
  TensorView statistics;
  // The micro-batch where the device reads it: (N) i32 each; room for document boundaries, i32;
  // (1) f32. Empty on the CPU.
  TensorView ids, targets, positions, cu_seqlens, loss_scale;
  std::unique_ptr<Uploads> uploads;  // of the micro-batch and the routers' values; not on the CPU

 private:
  std::int64_t tokens_;
  Keep keep_;
  std::unique_ptr<ExpertExchange> exchange_;
  Arena kept_, shared_;
};

}  // namespace grist::nn
