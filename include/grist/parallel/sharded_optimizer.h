#pragma once
// Data parallelism and ZeRO-1 (Rajbhandari et al. 1910.02054): one object that sums gradients over
// ranks, takes the optimizer step and gives every rank the new parameters.
//
// The gradients of non-expert parameters are summed over the world, those of experts over the
// expert-data-parallel group, in buckets (parallel/shard_plan.h), each bucket by a reduce-scatter
// of our own: parts travel, and the owner adds them by a fixed tree. Then
//   zero_stage 1  optimizer state exists for a rank's own parts only; it updates those, and the
//   fp32
//                 masters, which are whole on every rank, are gathered in place.
//   zero_stage 0  the summed gradients are gathered; every rank holds all the state of what it
//   holds,
//                 and updates it all.
// Both give the same bits, for any bucket size, with overlap or without. deterministic: elastic
// also gives the same bits for every world size that divides elastic_lanes, and every
// expert-parallel size (docs/numerics.md has the order of the sums).
//
// A step: begin_step(); for each lane, the micro-batches of this rank's run, the first of each lane
// overwriting the gradients (nn::StepScale::first), lane_done() after each lane but the last; this
// object as the sink of the very last micro-batch; step().
#include <memory>
#include <vector>

#include "grist/config/config.h"
#include "grist/nn/gradient_sink.h"
#include "grist/nn/parameters.h"
#include "grist/optim/optimizer.h"
#include "grist/parallel/layout.h"
#include "grist/parallel/shard_plan.h"

namespace grist::parallel {

// A part of a tensor; flat f32 views of it.
struct ShardPiece {
  const nn::NamedTensor* tensor = nullptr;
  TensorPart part;
  TensorView param, grad;
  std::vector<OptimizerState> state;
};

class ShardedOptimizer final : public nn::GradientSink {
 public:
  struct Options {
    MemoryLedger* ledger = nullptr;
    std::shared_ptr<const UpdateRule> rule = nullptr;  // null: the one of config.optim
  };
  // Collective calls follow on groups.world and groups.expert_data_parallel. All that is referenced
  // must outlive this. With one rank no memory is taken but the state (and lane sums).
  // Error{internal} when the parameters are not those of the layout, e.g. gradient_sources.
  ShardedOptimizer(nn::Parameters& parameters, const Layout& layout, Groups& groups,
                   const Config& config, const Context& ctx, const Options& options);
  ~ShardedOptimizer() override;

  // Runs of micro-batches that this rank adds apart: 1, or elastic_lanes / world when elastic.
  int lanes() const;
  void begin_step();
  void lane_done();
  // Starts the reduction of buckets that are complete (overlap_grad_reduce), and returns while they
  // travel; waits only when two are still on their way.
  void ready(std::size_t group) override;
  // Collective; blocks. `loss` is for the decision to skip alone: when it, or the gradient norm, is
  // not finite on any rank, nothing changes anywhere. Otherwise Parameters' master values are new
  // everywhere; compute weights are the caller's to refresh. Afterwards the gradients of saves()
  // are the step's sums, before clipping; all others are unspecified.
  OptimizerResult step(double lr, double loss);

  std::int64_t updates() const;  // applied so far
  void set_updates(std::int64_t n);

  // In order of (name, begin). What this rank writes to a checkpoint: the pieces of all ranks
  // together tile every tensor once.
  const std::vector<ShardPiece>& saves() const { return saves_; }
  // What this rank must load state for. Parameters are loaded whole by every rank that holds
  // them.
  const std::vector<ShardPiece>& holds() const { return stage_ == 0 ? whole_ : saves_; }

 private:
  struct Parts;  // what step() works with
  enum class Values { masters, gradients };
  ShardPiece describe(const TensorPiece& piece) const;
  void allocate_state();
  void clear_state();
  void gather(Values what);

  nn::Parameters& parameters_;
  Groups& groups_;
  const Context& ctx_;
  std::int64_t stage_;
  std::shared_ptr<const UpdateRule> rule_;
  ShardPlan plan_;
  Arena state_;
  std::vector<ShardPiece> saves_, whole_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace grist::parallel
