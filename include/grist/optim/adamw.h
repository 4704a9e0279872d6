#pragma once
// One optimizer step over all parameters: gradient norm, clipping, the decision to skip, AdamW.
// Works on what the rank owns; the views belong to the caller and must outlive the Optimizer.
// Spread over ranks (parallel/sharded_optimizer.h) the norm comes from elsewhere and update() does
// the rest.
//
//   norm    = sqrt(sum of g^2): double sums of 64 Ki-element chunks of each tensor, added by a tree
//             over all chunks in name order; no thread count or order of entries changes its bits
//   factor  = min(1, clip_grad / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; clip_grad 0: 1
//   update  = AdamW of ops/optimizer.h on factor * g, unless loss or norm is not finite: then the
//             parameters and moments keep every bit and the count of updates stands still
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "grist/config/config.h"
#include "grist/core/context.h"
#include "grist/core/memory.h"
#include "grist/core/tensor.h"
#include "grist/optim/gradient_norm.h"

namespace grist {

struct OptimizerEntry {
  std::string name;        // global tensor name
  TensorView param;        // inout f32, any shape
  TensorView m;            // inout f32, as many elements: first moment
  TensorView v;            // inout f32: second moment
  ConstTensorView grad;    // in    f32: gradient of the mean loss of the global batch
  bool decay = false;      // weight_decay applies
  double lr_factor = 1.0;  // times the step's rate (router_lr_factor, expert_lr_factor)
  // Of a piece of a tensor: its first element in the flattened tensor, a multiple of
  // ops::kNormChunk. One entry a (name, begin).
  std::int64_t begin = 0;
};

struct OptimizerStep {
  double lr = 0;    // learning_rate() of this step
  double loss = 0;  // of this step; not finite: the update is skipped
};

struct OptimizerResult {
  double grad_norm = 0;    // before clipping
  double clip_factor = 1;  // what the gradients were multiplied by
  bool applied = false;
};

class Optimizer {
 public:
  // `device`: where the entries lie.
  Optimizer(const OptimConfig& config, std::vector<OptimizerEntry> entries,
            MemoryLedger* ledger = nullptr, Device device = Device::cpu);
  // The norm of these entries' gradients, then update().
  OptimizerResult step(const Context& ctx, const OptimizerStep& s);
  // Clip, decide, AdamW, with the norm that the caller found.
  OptimizerResult update(const Context& ctx, const OptimizerStep& s, double grad_norm);

  // Updates applied so far: Adam's bias correction counts these, not steps. Saved in checkpoints.
  std::int64_t adam_steps() const { return adam_steps_; }
  void set_adam_steps(std::int64_t n);
  const std::vector<OptimizerEntry>& entries() const { return entries_; }  // by (name, begin)

 private:
  struct Slice {  // a run of elements with the same settings: the unit of parallel work
    TensorView param, m, v;
    ConstTensorView grad;
    bool decay = false;
    double lr_factor = 1.0;
  };
  void add_slices(const OptimizerEntry& entry, Device device);
  void apply(const Context& ctx, double lr);

  OptimConfig config_;
  std::vector<OptimizerEntry> entries_;
  std::vector<Slice> slices_;
  std::optional<GradientNorm> norm_;
  Arena arena_;
  TensorView partials_;  // (chunks) f64
  TensorView control_;   // (2) f32: clip factor, apply
  std::int64_t adam_steps_ = 0;
};

}  // namespace grist
