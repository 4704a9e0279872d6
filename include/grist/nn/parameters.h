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
#include "grist/core/memory.h"
#include "grist/ops/weight.h"

namespace grist::nn {

enum class ParameterKind : std::uint8_t { embedding, norm, matrix, router, expert };

// One stored block. `compute` is set for what enters a matmul (matrix, router, expert, output
// layer).
struct Parameter {
  Shape shape;
  ParameterKind kind = ParameterKind::matrix;
  TensorView master;  // f32
  TensorView grad;    // f32; empty without gradients; experts: (num_experts * S, ...)
  ops::WeightView compute;
};

struct LayerParameters {
  Parameter input_norm, q, k, v, o;
  std::optional<Parameter> q_norm, k_norm;  // (Dh), qk_norm only
  Parameter post_attention_norm;
  // A dense FFN has gate_up (2F, D) and down (D, F); a MoE layer the router and its experts.
  std::optional<Parameter> gate_up, down;
  std::optional<Parameter> router;                       // (E, D)
  std::optional<Parameter> expert_gate_up, expert_down;  // (E, 2F, D), (E, D, F): those held here
  std::optional<Parameter> shared_gate_up, shared_down;  // (2Fs, D), (D, Fs)
  bool is_moe() const { return router.has_value(); }
};

// What of the model this process holds; all of it by default.
struct ModelPart {
  std::int64_t first_expert = 0;
  std::int64_t num_experts = -1;      // of each MoE layer; -1: all
  std::int64_t gradient_sources = 1;  // S > 1: expert gradients are kept apart by source rank, as
                                      // (num_experts * S, ...), source the faster (elastic sums)
};

// Elements [begin, end) of the parameter arena.
struct ArenaRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};

// Parameters whose gradients become final at the same moment of the backward pass: the output, a
// layer, the embedding.
struct ParameterGroup {
  std::string name;    // "output", "layer 3", "embedding"
  ArenaRange dense;    // held by all ranks
  ArenaRange experts;  // this rank's
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
  TensorView grad;        // where its sum over ranks ends up
  float init_std = 0.0F;  // 0: initialised to 1 (norms)
};

class Parameters {
 public:
  // Lays out and allocates; values are zero until initialize() or a checkpoint load, then
  // refresh(). `dtype`: of the matrices' compute weights (nn::activation_dtype()); routers' are
  // f32.
  Parameters(const ModelConfig& config, Device device, bool with_gradients, MemoryLedger* ledger,
             const ModelPart& part = {}, DType dtype = DType::f32);

  // Every value is a function of (seed, global name, index in the tensor).
  void initialize(const Context& ctx, std::uint64_t seed);
  // Compute weights from master values.
  void refresh(const Context& ctx);

  std::int64_t numel() const { return numel_; }  // elements of the arena, padding included
  const std::vector<NamedTensor>& tensors() const { return tensors_; }  // in name order
  const ModelPart& part() const { return part_; }

  // The arena holds the dense part first, then the experts; groups are in the order of the backward
  // pass, so both their ranges descend.
  ArenaRange dense_range() const { return {0, dense_numel_}; }
  ArenaRange expert_range() const { return {dense_numel_, numel_}; }
  const std::vector<ParameterGroup>& groups() const { return groups_; }
  TensorView master_elements(const ArenaRange& range) const;
  TensorView grad_elements(const ArenaRange& range) const;
  // Where the backward pass writes the experts' gradients: (num_experts, S, n) a block, flat;
  // `range` in elements of the parameter arena. With S = 1 the same as grad_elements.
  TensorView expert_grad_sources(const ArenaRange& range) const;

  Parameter embedding;  // (V, D); its compute weight is the output layer's when tied
  std::vector<LayerParameters> layers;
  Parameter final_norm;
  std::optional<Parameter> head;  // (V, D); absent when tied
  const Parameter& output() const { return head ? *head : embedding; }

 private:
  struct Layout;
  template <class F> void for_each_compute(F&& f);
  ModelPart part_;
  Arena master_arena_, grad_arena_, source_arena_, compute_arena_;
  std::vector<NamedTensor> tensors_;
  std::vector<ParameterGroup> groups_;
  std::int64_t numel_ = 0;
  std::int64_t dense_numel_ = 0;
};

}  // namespace grist::nn
