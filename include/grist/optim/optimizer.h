#pragma once
// One optimizer step over all parameters: gradient norm, clipping, the decision to skip, and the
// update, which an UpdateRule makes (optim/adamw.h is one). Works on what the rank owns; the views
// belong to the caller and must outlive the Optimizer. Spread over ranks
// (parallel/sharded_optimizer.h) the norm comes from elsewhere and update() does the rest.
//
//   norm    = sqrt(sum of g^2): double sums of 64 Ki-element chunks of each tensor, added by a tree
//             over all chunks in name order; no thread count or order of entries changes its bits
//   factor  = min(1, clip_grad / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; clip_grad 0: 1
//   update  = the rule's on factor * g, unless loss or norm is not finite: then parameters and
//             states keep every bit and the count of updates stands still
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/config/config.h"
#include "grist/core/context.h"
#include "grist/core/memory.h"
#include "grist/core/tensor.h"
#include "grist/core/tensor_part.h"
#include "grist/optim/gradient_norm.h"

namespace grist {

// ---- rules -----------------------------------------------------------------------------------

// A parameter tensor, as a rule sees it.
struct OptimizedTensor {
  std::string name;    // global
  Shape shape;         // of the whole tensor
  bool decay = false;  // weight_decay applies
};

// Where a tensor may be cut over ranks.
enum class CutRule : std::uint8_t {
  chunks,  // at the edges of norm chunks (ops/optimizer.h): every element is updated by itself
  whole,   // nowhere: the rule needs the matrix
};

// What a rule updates at once: with CutRule::chunks any run of elements, flat, else a whole tensor
// in its shape.
struct UpdateItem {
  const OptimizedTensor* tensor = nullptr;
  double lr_factor = 1.0;         // times the step's rate
  TensorView param;               // inout f32
  ConstTensorView grad;           // in    f32, before clipping
  std::vector<TensorView> state;  // inout f32, in the order of states()
};

struct UpdateStep {
  double lr = 0;
  std::int64_t number = 1;  // updates applied, this one included
  ConstTensorView control;  // (2) f32: clip factor; 1 to apply, 0 to leave everything as it is
};

// A new optimizer is one of these, and a line in make_update_rule(). The same answers on all ranks,
// and for all experts of a layer.
class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  // What it keeps of a tensor from step to step, zero at first: f32 of the tensor's size each, by
  // names that checkpoints keep (state_tensor_name()).
  virtual std::vector<std::string> states(const OptimizedTensor& tensor) const = 0;
  virtual CutRule cut(const OptimizedTensor& tensor) const = 0;
  virtual void apply(const Context& ctx, std::span<const UpdateItem> items,
                     const UpdateStep& step) const = 0;
};

// The one that optim.name names.
std::shared_ptr<const UpdateRule> make_update_rule(const OptimConfig& config);

// Name in checkpoints: "optim.m.<tensor>".
inline constexpr std::string_view kStatePrefix = "optim.";
std::string state_tensor_name(std::string_view state, std::string_view tensor);

// ---- the optimizer ---------------------------------------------------------------------------

struct OptimizerState {
  std::string name;   // one of UpdateRule::states()
  TensorView values;  // inout f32, as many elements as the parameter
};

struct OptimizerEntry {
  OptimizedTensor tensor;
  // Which elements these are. One entry a (name, part); begins at a norm chunk's edge, ends at one
  // or at the tensor's end.
  TensorPart part;
  TensorView param;      // inout f32, any shape
  ConstTensorView grad;  // in    f32: gradient of the mean loss of the global batch
  std::vector<OptimizerState> state;
  double lr_factor = 1.0;  // router_lr_factor, expert_lr_factor
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
  struct Place {
    Device device = Device::cpu;  // where the entries lie
    MemoryLedger* ledger = nullptr;
  };
  Optimizer(std::shared_ptr<const UpdateRule> rule, double clip_grad,
            std::vector<OptimizerEntry> entries, const Place& place);
  // On the CPU, with the configuration's rule.
  Optimizer(const OptimConfig& config, std::vector<OptimizerEntry> entries);
  // The norm of these entries' gradients, then update().
  OptimizerResult step(const Context& ctx, const OptimizerStep& s);
  // Clip, decide, update, with the norm that the caller found.
  OptimizerResult update(const Context& ctx, const OptimizerStep& s, double grad_norm);

  // Updates applied so far: bias corrections count these, not steps. Saved in checkpoints.
  std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t n);
  const std::vector<OptimizerEntry>& entries() const { return entries_; }  // by (name, part)

 private:
  void sort_entries();
  void check_and_flatten(OptimizerEntry& entry) const;
  void make_items(Device device);
  void add_item(const OptimizerEntry& entry, std::int64_t begin, std::int64_t end);
  bool extend_last(const OptimizerEntry& entry);

  std::shared_ptr<const UpdateRule> rule_;
  double clip_grad_;
  std::vector<OptimizerEntry> entries_;
  std::vector<UpdateItem> items_;
  std::optional<GradientNorm> norm_;
  Arena arena_;
  TensorView partials_;  // (chunks) f64
  TensorView control_;   // (2) f32: clip factor, apply
  std::int64_t updates_ = 0;
};

}  // namespace grist
