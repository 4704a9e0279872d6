#include "grist/parallel/layout.h"

#include <span>

#include "grist/comm/device.h"
#include "grist/config/batch_ramp.h"
#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::parallel {

Layout::Layout(std::int64_t world, std::int64_t rank, std::int64_t expert_parallel)
    : world_(world), rank_(rank) {
  GRIST_CHECK(world >= 1 && 0 <= rank && rank < world, "rank {} of {}", rank, world);
  GRIST_CHECK(expert_parallel >= 1 && world % expert_parallel == 0,
              "{} expert-parallel ranks in a world of {}", expert_parallel, world);
  axes_ = {{"expert_data_parallel", world / expert_parallel, rank / expert_parallel},
           {"expert_parallel", expert_parallel, rank % expert_parallel}};
}

std::string Layout::str() const {
  std::string s = fmt::format("world {}", world_);
  for (auto a = axes_.rbegin(); a != axes_.rend(); ++a)
    s += fmt::format(", {} {}", a->name, a->size);
  return s;
}

std::int64_t Layout::first_expert(std::int64_t num_experts) const {
  return num_experts / expert_parallel() * expert_parallel_index();
}

std::int64_t Layout::local_experts(std::int64_t num_experts) const {
  GRIST_CHECK(num_experts % expert_parallel() == 0, "{} experts over {} ranks", num_experts,
              expert_parallel());
  return num_experts / expert_parallel();
}

namespace {

comm::DeviceTransport transport(WantedTransport wanted) {
  switch (wanted) {
    case WantedTransport::auto_: return comm::DeviceTransport::automatic;
    case WantedTransport::nccl: return comm::DeviceTransport::nccl;
    case WantedTransport::staged: return comm::DeviceTransport::staged;
  }
  return comm::DeviceTransport::automatic;
}

}  // namespace

Groups make_groups(comm::Communicator& world, const Layout& layout, const Context& ctx,
                   WantedTransport wanted) {
  Groups g;
  g.world.host_ = &world;
  const auto part = [&](Group& group, std::int64_t color) {
    group.own_ = world.split(static_cast<int>(color));
    group.host_ = group.own_.get();
  };
  part(g.expert_parallel, layout.expert_data_parallel_index());
  part(g.expert_data_parallel, layout.expert_parallel_index());
  if (properties(ctx.device).reads_host_memory || world.size() == 1) return g;
  for (Group* group : {&g.world, &g.expert_parallel, &g.expert_data_parallel}) {
    comm::DeviceCommunicator made =
        comm::device_communicator(group->host(), {ctx.device, ctx.stream}, transport(wanted));
    group->device_ = std::move(made.communicator);
    if (g.transport.empty()) g.transport = made.description;
  }
  return g;
}

namespace {

bool power_of_two(std::int64_t n) {
  return n > 0 && (n & (n - 1)) == 0;
}

void check_batches(const Config& c, std::span<const std::int64_t> sizes, std::int64_t parts,
                   const char* what, std::vector<std::string>& problems) {
  for (const std::int64_t size : sizes) {
    if (size % (c.train.micro_batch_size * parts) == 0) continue;
    const bool last = size == c.train.global_batch_size;
    problems.push_back(
        fmt::format("{}: {} sequences are not a multiple of micro_batch_size {} times {} {}",
                    last ? "train.global_batch_size" : "train.rampup_batch_size", size,
                    c.train.micro_batch_size, parts, what));
    return;
  }
}

}  // namespace

std::vector<std::string> layout_problems(const Config& config, std::int64_t world) {
  std::vector<std::string> problems;
  const ParallelConfig& p = config.parallel;
  const std::int64_t ep = p.expert_model_parallel_size, experts = config.model.moe.num_experts;
  if (world % ep != 0)
    problems.push_back(fmt::format(
        "parallel.expert_model_parallel_size: {} does not divide the number of ranks, {}", ep,
        world));
  if (ep > 1 && experts % ep != 0)
    problems.push_back(fmt::format(
        "parallel.expert_model_parallel_size: {} does not divide num_experts {}", ep, experts));
  if (ep > 1 && experts == 0)
    problems.push_back(
        fmt::format("parallel.expert_model_parallel_size: {}, but the model has no experts", ep));
  const std::int64_t batch[] = {config.train.global_batch_size};
  check_batches(config, batch, world, "ranks", problems);
  if (p.deterministic != Deterministic::elastic) return problems;
  if (!power_of_two(world) || p.elastic_lanes % world != 0)
    problems.push_back(
        fmt::format("parallel.deterministic: elastic needs a number of ranks that is a power of "
                    "two and divides "
                    "elastic_lanes {}; there are {}",
                    p.elastic_lanes, world));
  check_batches(config, batch, p.elastic_lanes, "elastic_lanes", problems);
  return problems;
}

std::vector<std::string> ramp_problems(const Config& config, std::int64_t world,
                                       std::int64_t consumed_samples) {
  std::vector<std::string> problems;
  const std::vector<std::int64_t> sizes = batch_sizes_from(config.train, consumed_samples);
  check_batches(config, sizes, world, "ranks", problems);
  if (config.parallel.deterministic == Deterministic::elastic)
    check_batches(config, sizes, config.parallel.elastic_lanes, "elastic_lanes", problems);
  return problems;
}

}  // namespace grist::parallel
