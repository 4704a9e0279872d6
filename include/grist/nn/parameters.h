#pragma once
// The model's parameters: fp32 master values and gradients in two labelled arenas, and the compute
// weights that operations read (ops/weight.h), refreshed once per optimizer step. Matrices that are
// used together are stored together (gate rows before up rows, all experts of a layer in one
// block); seen from outside every tensor has its Hugging Face name and shape.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "grist/config/config.h"
#include "grist/core/context.h"
#include "grist/ops/weight.h"

namespace grist::nn {

enum class ParameterKind : std::uint8_t { embedding, norm, matrix, router, expert };

// One stored block. `compute` is set for what enters a matmul (matrix, router, expert, output
// layer).
struct Parameter {
  Shape shape;
  ParameterKind kind = ParameterKind::matrix;
  TensorView master;  // f32
  TensorView grad;    // f32; empty without gradients
  ops::WeightView compute;
};

struct LayerParameters {
  Parameter input_norm, q, k, v, o;
  std::optional<Parameter> q_norm, k_norm;  // (Dh), qk_norm only
  Parameter post_attention_norm;
  // A dense FFN has gate_up (2F, D) and down (D, F); a MoE layer the router and its experts.
  std::optional<Parameter> gate_up, down;
  std::optional<Parameter> router;                       // (E, D)
  std::optional<Parameter> expert_gate_up, expert_down;  // (E, 2F, D), (E, D, F)
  std::optional<Parameter> shared_gate_up, shared_down;  // (2Fs, D), (D, Fs)
  bool is_moe() const { return router.has_value(); }
};

// A tensor under its global name: a dense slice of a stored block. What checkpoints, the optimizer
// and exports work with.
struct NamedTensor {
  std::string name;  // e.g. model.layers.3.mlp.experts.17.gate_proj.weight
  Shape shape;
  ParameterKind kind = ParameterKind::matrix;
  bool decay = false;  // weight decay: matrices and experts only, not embeddings, norms or routers
  std::int64_t offset = 0;  // elements from the start of the parameter arena (the same in the
                            // gradient and moment arenas)
  TensorView master;
  TensorView grad;
  float init_std = 0.0F;  // 0: initialised to 1 (norms)
};

class Parameters {
 public:
  // Lays out and allocates; values are zero until initialize() or a checkpoint load, then
  // refresh().
  Parameters(const ModelConfig& config, Device device, bool with_gradients, MemoryLedger* ledger);

  // Every value is a function of (seed, global name, index in the tensor).
  void initialize(const Context& ctx, std::uint64_t seed);
  // Compute weights from master values.
  void refresh(const Context& ctx);

  std::int64_t numel() const { return numel_; }  // elements of the arena, padding included
  const std::vector<NamedTensor>& tensors() const { return tensors_; }  // in name order

  Parameter embedding;  // (V, D); its compute weight is the output layer's when tied
  std::vector<LayerParameters> layers;
  Parameter final_norm;
  std::optional<Parameter> head;  // (V, D); absent when tied
  const Parameter& output() const { return head ? *head : embedding; }

 private:
  struct Layout;
  template <class F> void for_each_compute(F&& f);
  Arena master_arena_, grad_arena_, compute_arena_;
  std::vector<NamedTensor> tensors_;
  std::int64_t numel_ = 0;
};

}  // namespace grist::nn
