#pragma once
// Who holds what. The world's ranks form a grid of named axes, the last one the fastest:
//
//   rank = expert_data_parallel * ep + expert_parallel        ep = expert_model_parallel_size
//
// An expert-parallel group is ep consecutive ranks that together hold all experts, num_experts / ep
// consecutive ones each. An expert-data-parallel group is the world/ep ranks that hold the same
// ones. Everything else is held by all ranks. (docs/parallelism.md has the picture.)
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grist/comm/communicator.h"
#include "grist/config/config.h"
#include "grist/core/context.h"

namespace grist::parallel {

struct Axis {
  std::string name;
  std::int64_t size = 1;
  std::int64_t index = 0;  // of this rank
};

class Layout {
 public:
  Layout() = default;  // one rank
  Layout(std::int64_t world, std::int64_t rank, std::int64_t expert_parallel);

  const std::vector<Axis>& axes() const { return axes_; }  // slowest first
  std::int64_t world() const { return world_; }
  std::int64_t rank() const { return rank_; }
  std::int64_t expert_parallel() const { return axes_[1].size; }
  std::int64_t expert_parallel_index() const { return axes_[1].index; }
  std::int64_t expert_data_parallel() const { return axes_[0].size; }
  std::int64_t expert_data_parallel_index() const { return axes_[0].index; }
  Layout of_rank(std::int64_t rank) const { return {world_, rank, expert_parallel()}; }
  std::string str() const;  // "world 8, expert_parallel 4, expert_data_parallel 2"

  // Experts [first, first + count) of `num_experts` that this rank holds.
  std::int64_t first_expert(std::int64_t num_experts) const;
  std::int64_t local_experts(std::int64_t num_experts) const;

 private:
  std::int64_t world_ = 1, rank_ = 0;
  std::vector<Axis> axes_ = {{"expert_data_parallel", 1, 0}, {"expert_parallel", 1, 0}};
};

struct Groups;

// One group of the layout, by what it carries.
class Group {
 public:
  comm::Communicator& host() const { return *host_; }  // numbers and words
  // Tensors of the context that the groups were made with (comm/device.h where that is a GPU's).
  comm::Communicator& tensors() const { return device_ ? *device_ : *host_; }
  explicit operator bool() const { return host_ != nullptr; }
  int size() const { return host_->size(); }
  int rank() const { return host_->rank(); }

 private:
  friend Groups make_groups(comm::Communicator& world, const Layout& layout, const Context& ctx,
                            WantedTransport wanted);
  comm::Communicator* host_ = nullptr;
  std::unique_ptr<comm::Communicator> own_;  // host_, unless it is the caller's
  std::unique_ptr<comm::Communicator> device_;
};

// The layout's communicators. Collective to make; owned by the caller, who keeps `world` alive.
struct Groups {
  Group world, expert_parallel, expert_data_parallel;
  std::string transport;  // of tensors, for the log; empty on the CPU and for one rank
};
// `wanted`: parallel.transport; on the CPU it means nothing.
Groups make_groups(comm::Communicator& world, const Layout& layout, const Context& ctx = {},
                   WantedTransport wanted = WantedTransport::auto_);

// What makes `config` impossible on so many ranks: one line each, with the key and the numbers.
std::vector<std::string> layout_problems(const Config& config, std::int64_t world);
// The same of the batch sizes still to come once so many samples are consumed.
std::vector<std::string> ramp_problems(const Config& config, std::int64_t world,
                                       std::int64_t consumed_samples);

}  // namespace grist::parallel
