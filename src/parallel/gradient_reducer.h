#pragma once
// From a rank's gradients to their sums over lanes, sources and ranks, bucket by bucket, while the
// backward pass goes on. When a bucket is complete: the lanes' sums are added, experts' sources are
// added, and its parts start on their way to the ranks that own them (comm::gather_parts). Two
// buckets are on their way at most; the oldest is waited for, and its own part summed, before a
// third one starts.
#include <array>
#include <cstdint>
#include <vector>

#include "grist/core/memory.h"
#include "grist/parallel/shard_plan.h"
#include "lane_sums.h"

namespace grist::parallel {

class GradientReducer {
 public:
  // All must outlive this. Error{internal} when the parameters do not fit the layout.
  GradientReducer(nn::Parameters& parameters, Groups& groups, const ShardPlan& plan,
                  const ParallelConfig& config, const Context& ctx, MemoryLedger* ledger);
  std::int64_t lanes() const { return lanes_.lanes(); }
  void begin_step();
  void lane_done() { lanes_.keep(); }
  void ready(std::size_t group);
  // Starts what has not started and waits for all. Then this rank's parts of the gradient arena
  // hold the sums; the rest of it is unspecified.
  void finish();

 private:
  struct Staging {  // one bucket on its way
    std::int64_t bucket = -1;
    comm::Pending dense_arrived, experts_arrived;
    TensorView memory;                     // f32, enough for any bucket
    TensorView dense_parts, expert_parts;  // (ranks of the group, own part)
  };
  void start(std::size_t bucket);
  void finish(Staging& s);
  void add_sources(const nn::ArenaRange& experts) const;
  std::int64_t staging_elements() const;

  nn::Parameters& parameters_;
  Groups& groups_;
  const ShardPlan& plan_;
  bool overlap_;
  const Context& ctx_;
  LaneSums lanes_;
  Arena arena_;
  std::array<Staging, 2> staging_;
  std::size_t started_ = 0;  // buckets of this step
};

}  // namespace grist::parallel
