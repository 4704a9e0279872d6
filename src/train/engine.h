#pragma once
// The arithmetic of training on one rank of a layout: from micro-batches to updated parameters,
// with every sum over micro-batches and ranks. It knows no files, no clock and no signals; `grist
// train`, `grist verify` and the tests all run this. All ranks of the world call its functions
// together.
//
// Losses and statistics are added in the order of the global batch's micro-batches, counts are
// whole numbers, and gradients are added as parallel/sharded_optimizer.h says: what a step gives
// depends on the layout at most in the order of gradient sums.
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "grist/config/config.h"
#include "grist/data/dataset.h"
#include "grist/nn/model.h"
#include "grist/parallel/layout.h"
#include "grist/parallel/sharded_optimizer.h"

namespace grist::train {

struct StepOutcome {
  double loss = 0;   // CE of this step, nats per target token
  double total = 0;  // with the auxiliary losses
  double grad_norm = 0;
  double lr = 0;
  std::int64_t targets = 0;  // of all ranks
  bool applied = false;
  // This rank's own time, waiting for others not counted: forward and backward; update.
  std::array<double, 2> compute_seconds = {};
};

// Asked before every micro-batch; the same answer on all ranks.
using StopQuestion = std::function<bool()>;

nn::Batch view(const Batch& b);

class Engine {
 public:
  // `config`, `world` and `ctx` must outlive it. The layout fits (layout_problems() found nothing).
  Engine(const Config& config, comm::Communicator& world, const Context& ctx, MemoryLedger* ledger);

  const parallel::Layout& layout() const { return layout_; }
  comm::Communicator& world() const { return groups_.world.host(); }
  nn::Model& model() { return *model_; }
  const nn::Model& model() const { return *model_; }
  parallel::ShardedOptimizer& optimizer() { return *optimizer_; }
  const Context& context() const { return ctx_; }
  // Empty where none are made.
  const std::optional<GraphCache>& graphs() const { return graphs_; }
  const std::string& transport() const { return groups_.transport; }    // of tensors between GPUs
  const nn::StepStatistics& statistics() const { return statistics_; }  // of the last step, global

  // Values from the seed; call refresh() after this or a load.
  void initialize();
  void refresh();
  // One micro-batch whose gradients are thrown away: fills scratch memory.
  void warm_up(const Batch& batch);

  // This rank's run of the global batch's micro-batches: as many on every rank. Empty when `stop`
  // said so: nothing has changed then.
  std::optional<StepOutcome> step(std::span<const Batch> batches, double lr,
                                  const StopQuestion& stop);

  struct Evaluation {
    double loss_sum = 0;  // nats
    std::int64_t targets = 0;
  };
  // The first `count` micro-batches of a set, spread over the ranks; added in their order.
  std::optional<Evaluation> evaluate(const ValidationSet& set, std::int64_t count,
                                     const StopQuestion& stop);

 private:
  void start_micro_batch(const Batch& batch, const nn::StepScale& scale, std::size_t number,
                         bool last);
  std::vector<std::vector<double>> collect(const nn::StepScale& scale, std::size_t count);
  void make_room(std::size_t micro_batches);
  void add_counts();
  void add_up(const std::vector<std::vector<double>>& values);

  const Config& config_;
  const Context& ctx_;
  parallel::Layout layout_;
  parallel::Groups groups_;
  std::optional<nn::Model> model_;
  std::optional<parallel::ShardedOptimizer> optimizer_;
  std::optional<nn::Activations> activations_;
  std::optional<GraphCache> graphs_;  // none: every operation is started by the host
  Buffer sums_;                       // of a step's micro-batches, as a device leaves them
  MemoryLedger* ledger_;
  nn::StepStatistics statistics_, micro_batch_;
};

}  // namespace grist::train
