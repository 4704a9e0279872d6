#pragma once
// The norm of the whole model's gradient, the same bits on every rank and at every layout: each
// norm chunk's partial sum is made by the one rank that owns the chunk, all ranks get all of them,
// and add them in the order of the tensors' names (optim/gradient_norm.h).
#include <cstddef>
#include <vector>

#include "grist/core/memory.h"
#include "grist/optim/gradient_norm.h"
#include "grist/parallel/shard_plan.h"

namespace grist::parallel {

class GlobalNorm {
 public:
  // gradients: this rank's, one for each of plan.pieces(). `world` and what they point into must
  // outlive this.
  GlobalNorm(const ShardPlan& plan, comm::Communicator& world,
             const std::vector<ConstTensorView>& gradients, Device device, MemoryLedger* ledger);

  struct Result {
    double norm = 0;
    double loss = 0;  // this rank's; not finite when it is not on some rank
  };
  // Collective; blocks.
  Result find(const Context& ctx, double loss);

 private:
  comm::Communicator& world_;
  GradientNorm norm_;
  Arena arena_, device_arena_;
  TensorView own_;  // (own chunks) f64 where the gradients are; on the CPU part of gathered_
  // Rank after rank: its partial sums, then its loss.
  std::vector<std::int64_t> offsets_;       // world + 1
  TensorView gathered_;                     // (offsets_.back()) f64
  std::vector<std::size_t> in_name_order_;  // indices of gathered_
  TensorView partials_;                     // (all chunks) f64
};

}  // namespace grist::parallel
