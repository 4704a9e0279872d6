#pragma once
// The decoder-only transformer with MoE feed-forward layers, forward and backward written out. One
// call handles one micro-batch; gradients add up over the micro-batches of a step. Total loss = CE
// (sum over targets * loss_scale) + sum over layers of (aux + z), each a mean over the micro-batch,
// times micro_batch_weight. docs/architecture.md tells the life of a step.
#include <cstdint>
#include <vector>

#include "grist/config/config.h"
#include "grist/core/graph.h"
#include "grist/nn/activations.h"
#include "grist/nn/gradient_sink.h"
#include "grist/nn/parameters.h"
#include "grist/nn/statistics.h"

namespace grist::nn {

// One micro-batch of packed rows, in host memory. Documents never span sequences of different rows;
// cu_seqlens tells where attention may look.
struct Batch {
  ConstTensorView ids;         // (N) i32
  ConstTensorView targets;     // (N) i32; negative: not counted
  ConstTensorView positions;   // (N) i32
  ConstTensorView cu_seqlens;  // (S+1) i32, document boundaries, 0 ... N
};

struct StepScale {
  float loss_scale = 1.0F;          // 1 / target tokens of the global batch
  float micro_batch_weight = 1.0F;  // 1 / micro-batches of the step
  bool first = true;                // gradients are overwritten by this micro-batch; later ones add
};

// What balancing carries from step to step; saved in checkpoints.
struct RouterState {
  std::vector<std::vector<float>> bias;  // per MoE layer (E): selection bias, zero when not used
  std::vector<std::vector<float>> load_fraction;  // per MoE layer (E): share of choices in the last
                                                  // step; uniform before the first
};

// One call of forward_backward().
struct MicroBatch {
  Batch batch;
  StepScale scale;
  // out: act.statistics' size of host memory, for collect(); written when the device comes to it.
  std::byte* statistics = nullptr;
  GradientSink* sink = nullptr;  // may be null
  // Where not null: the operations are recorded and started again. Always used with these
  // activations, which have no exchange, and this context.
  GraphCache* graphs = nullptr;
};

// Rows that an expert takes of a micro-batch of `tokens` at most; 0: all (dropless).
std::int64_t expert_capacity(const MoeConfig& moe, std::int64_t tokens);

class Model {
 public:
  // `dtype`: activation_dtype(), the same as that of the activations it will run with.
  Model(const ModelConfig& config, Device device, bool with_gradients, MemoryLedger* ledger,
        const ModelPart& part = {}, DType dtype = DType::f32);

  const ModelConfig& config() const { return config_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  RouterState& router_state() { return router_state_; }
  const RouterState& router_state() const { return router_state_; }
  // Global names of the selection biases in a checkpoint, one a MoE layer (Hugging Face's name).
  std::vector<std::string> router_bias_names() const;
  std::int64_t num_moe_layers() const {
    return static_cast<std::int64_t>(router_state_.bias.size());
  }

  // Loss and gradients of one micro-batch. Needs activations that keep something. On a GPU it
  // returns while the device works: the batch's memory may be reused, nothing else is there before
  // wait(). With experts on other ranks (Activations::exchange) all ranks of the expert-parallel
  // group call, each with a micro-batch of its own; gradients of the experts held here are then
  // those of all these micro-batches. So too for evaluate().
  void forward_backward(const Context& ctx, Activations& act, const MicroBatch& m);
  // Adds what a call with this scale has left in `statistics`; after wait(), before
  // update_router_state().
  void collect(const Activations& act, const StepScale& scale, const std::byte* statistics,
               StepStatistics& out) const;
  // Both, and waits.
  void forward_backward(const Context& ctx, Activations& act, const Batch& batch,
                        const StepScale& scale, StepStatistics& statistics,
                        GradientSink* sink = nullptr);
  // Per-token losses in act.losses, their sum returned. Dropless, no gradients.
  double evaluate(const Context& ctx, Activations& act, const Batch& batch);
  // After the optimizer step: selection biases move against the step's load (Wang et al.
  // 2408.15664), fractions are remembered.
  void update_router_state(const StepStatistics& statistics);

 private:
  friend class Decoder;
  friend class Scorer;
  void clear_added_gradients(const Context& ctx);
  void check(const Activations& act) const;
  ModelConfig config_;
  Parameters parameters_;
  RouterState router_state_;
  TensorView rope_table_;
  // (2, MoE layers, E) f32: biases and load fractions where the device reads them; empty on the
  // CPU.
  TensorView router_values_;
  Arena constants_;
};

}  // namespace grist::nn
