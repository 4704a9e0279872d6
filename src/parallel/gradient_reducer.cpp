#include "gradient_reducer.h"

#include <algorithm>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/ops/optimizer.h"

namespace grist::parallel {

namespace {

std::int64_t lanes_of(const ParallelConfig& config, const Layout& layout) {
  if (config.deterministic != Deterministic::elastic) return 1;
  GRIST_CHECK(config.elastic_lanes % layout.world() == 0, "{} lanes over {} ranks",
              config.elastic_lanes, layout.world());
  return config.elastic_lanes / layout.world();
}

// (ranks, own part) at `offset` of a flat view.
TensorView parts_at(const TensorView& memory, std::int64_t offset, const comm::Communicator& c,
                    const std::vector<std::int64_t>& cuts) {
  const auto self = static_cast<std::size_t>(c.rank());
  const std::int64_t own = cuts[self + 1] - cuts[self];
  return reshape(rows(memory, offset, offset + c.size() * own), {c.size(), own});
}

void add_parts(const Context& ctx, const comm::Communicator& c, const TensorView& range,
               const std::vector<std::int64_t>& cuts, const TensorView& parts) {
  const auto self = static_cast<std::size_t>(c.rank());
  ops::tree_add(ctx, {.sum = rows(range, cuts[self], cuts[self + 1]), .parts = parts});
}

}  // namespace

GradientReducer::GradientReducer(nn::Parameters& parameters, Groups& groups, const ShardPlan& plan,
                                 const ParallelConfig& config, const Context& ctx,
                                 MemoryLedger* ledger)
    : parameters_(parameters),
      groups_(groups),
      plan_(plan),
      overlap_(config.overlap_grad_reduce),
      ctx_(ctx),
      lanes_(parameters, lanes_of(config, plan.layout()), ctx, ledger),
      arena_("gradient staging", ctx.device, ledger) {
  const std::int64_t sources =
      config.deterministic == Deterministic::elastic ? plan.layout().expert_parallel() : 1;
  GRIST_CHECK(parameters.part().gradient_sources == sources,
              "expert gradients of {} sources, {} are needed", parameters.part().gradient_sources,
              sources);
  const Shape size = {staging_elements()};
  const std::size_t first = arena_.reserve(DType::f32, size);
  const std::size_t second = arena_.reserve(DType::f32, size);
  arena_.commit();
  staging_[0].memory = arena_.view(first, DType::f32, size);
  staging_[1].memory = arena_.view(second, DType::f32, size);
}

std::int64_t GradientReducer::staging_elements() const {
  std::int64_t most = 0;
  const auto need = [](const comm::Communicator& c, const std::vector<std::int64_t>& cuts) {
    const auto self = static_cast<std::size_t>(c.rank());
    return c.size() == 1 ? 0 : c.size() * (cuts[self + 1] - cuts[self]);
  };
  for (const Bucket& b : plan_.buckets())
    most = std::max(most, need(groups_.world.host(), b.dense_cuts) +
                              need(groups_.expert_data_parallel.host(), b.expert_cuts));
  return most;
}

void GradientReducer::begin_step() {
  for (Staging& s : staging_) {  // of a step that was given up
    s.dense_arrived.wait();
    s.experts_arrived.wait();
    s.bucket = -1;
  }
  lanes_.begin_step();
  started_ = 0;
}

void GradientReducer::ready(std::size_t group) {
  if (!overlap_) return;
  while (started_ < plan_.buckets().size() && plan_.buckets()[started_].last_group <= group)
    start(started_);
}

void GradientReducer::start(std::size_t bucket) {
  const Bucket& b = plan_.buckets()[bucket];
  lanes_.add_to(b.dense, b.experts);
  add_sources(b.experts);
  Staging& s = staging_[bucket % staging_.size()];
  finish(s);
  s.bucket = static_cast<std::int64_t>(bucket);
  std::int64_t used = 0;
  comm::Communicator& world = groups_.world.tensors();
  if (world.size() > 1) {
    s.dense_parts = parts_at(s.memory, 0, world, b.dense_cuts);
    used = s.dense_parts.numel();
    s.dense_arrived =
        comm::gather_parts(world, parameters_.grad_elements(b.dense), b.dense_cuts, s.dense_parts);
  }
  comm::Communicator& sharers = groups_.expert_data_parallel.tensors();
  if (sharers.size() > 1) {
    s.expert_parts = parts_at(s.memory, used, sharers, b.expert_cuts);
    s.experts_arrived = comm::gather_parts(sharers, parameters_.grad_elements(b.experts),
                                           b.expert_cuts, s.expert_parts);
  }
  ++started_;
}

void GradientReducer::finish(Staging& s) {
  if (s.bucket < 0) return;
  const Bucket& b = plan_.buckets()[static_cast<std::size_t>(s.bucket)];
  s.bucket = -1;
  s.dense_arrived.wait();
  if (groups_.world.size() > 1)
    add_parts(ctx_, groups_.world.host(), parameters_.grad_elements(b.dense), b.dense_cuts,
              s.dense_parts);
  s.experts_arrived.wait();
  if (groups_.expert_data_parallel.size() > 1)
    add_parts(ctx_, groups_.expert_data_parallel.host(), parameters_.grad_elements(b.experts),
              b.expert_cuts, s.expert_parts);
}

void GradientReducer::finish() {
  while (started_ < plan_.buckets().size()) start(started_);
  for (std::size_t i = 0; i < staging_.size(); ++i)  // the older one first
    finish(staging_[(started_ + i) % staging_.size()]);
}

// Expert gradients by source, (experts, S, n) a block, become their sums over sources: ranks of an
// expert-parallel group are consecutive, so this is the lower part of the tree over ranks.
void GradientReducer::add_sources(const nn::ArenaRange& experts) const {
  const std::int64_t sources = parameters_.part().gradient_sources;
  if (sources == 1) return;
  const auto* arena = parameters_.master_elements({0, parameters_.numel()}).as<float>();
  for (const nn::LayerParameters& layer : parameters_.layers) {
    for (const std::optional<nn::Parameter>* p : {&layer.expert_gate_up, &layer.expert_down}) {
      if (!p->has_value()) continue;
      const nn::Parameter& block = **p;
      const std::int64_t begin = block.master.as<float>() - arena;
      if (begin < experts.begin || begin >= experts.end) continue;
      const std::int64_t count = block.shape[0], n = block.shape.numel() / count;
      parallel_for(ctx_, count, [&](std::int64_t e, int /*worker*/) {
        const TensorView by_source = rows(block.grad, e * sources, (e + 1) * sources);
        ops::tree_add(ctx_, {.sum = parameters_.grad_elements({begin + e * n, begin + (e + 1) * n}),
                             .parts = reshape(by_source, {sources, n})});
      });
    }
  }
}

}  // namespace grist::parallel
