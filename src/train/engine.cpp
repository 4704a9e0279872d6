#include "engine.h"

#include <algorithm>
#include <chrono>

#include "alive.h"
#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/parallel/expert_exchange.h"

namespace grist::train {

nn::Batch view(const Batch& b) {
  const auto whole = [](const std::vector<std::int32_t>& v) {
    return ConstTensorView(v.data(), DType::i32, {static_cast<std::int64_t>(v.size())});
  };
  return {whole(b.ids), whole(b.targets), whole(b.positions), whole(b.cu_seqlens)};
}

namespace {

nn::ModelPart part_of(const Config& config, const parallel::Layout& layout) {
  const std::int64_t experts = config.model.moe.num_experts;
  if (experts == 0 || layout.expert_parallel() == 1) return {};
  const bool elastic = config.parallel.deterministic == Deterministic::elastic;
  return {.first_expert = layout.first_expert(experts),
          .num_experts = layout.local_experts(experts),
          .gradient_sources = elastic ? layout.expert_parallel() : 1};
}

// The sums of one micro-batch that are not whole numbers; add_up() takes them apart.
std::vector<double> values_of(const nn::StepStatistics& micro_batch) {
  std::vector<double> values;
  nn::for_each_sum(micro_batch, [&](double sum) { values.push_back(sum); });
  return values;
}

// Rows of doubles, one a micro-batch, from every rank: in the order of the global batch when ranks
// hold contiguous runs.
std::vector<std::vector<double>> gather_rows(comm::Communicator& world,
                                             const std::vector<std::vector<double>>& rows) {
  if (world.size() == 1) return rows;
  std::vector<double> mine;
  for (const std::vector<double>& row : rows) mine.insert(mine.end(), row.begin(), row.end());
  const std::vector<double> all = comm::all_gather(world, mine);
  const auto width = static_cast<std::ptrdiff_t>(rows[0].size());
  std::vector<std::vector<double>> out;
  for (auto at = all.begin(); at != all.end(); at += width) out.emplace_back(at, at + width);
  return out;
}

// Seconds since the last call, without those spent waiting for other ranks.
class ComputeClock {
 public:
  explicit ComputeClock(const comm::Activity& activity) : activity_(activity) { lap(); }
  double lap() {
    const std::int64_t waited = activity_.waited_ns.load();
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - then_).count() -
                           static_cast<double>(waited - waited_) * 1e-9;
    then_ = now;
    waited_ = waited;
    return seconds;
  }

 private:
  const comm::Activity& activity_;
  std::chrono::steady_clock::time_point then_;
  std::int64_t waited_ = 0;
};

}  // namespace

Engine::Engine(const Config& config, comm::Communicator& world, const Context& ctx,
               MemoryLedger* ledger)
    : config_(config),
      ctx_(ctx),
      layout_(world.size(), world.rank(), config.parallel.expert_model_parallel_size),
      groups_(parallel::make_groups(world, layout_, ctx, config.parallel.transport)),
      ledger_(ledger) {
  world.activity().enter("taking memory");
  const Alive alive(world.activity());
  const DType dtype = nn::activation_dtype(config, ctx.device);
  model_.emplace(config.model, ctx.device, true, ledger, part_of(config, layout_), dtype);
  const std::int64_t tokens = config.train.micro_batch_size * config.data.seq_length;
  const nn::Keep keep = nn::keep_for(config.train);
  optimizer_.emplace(model_->parameters(), layout_, groups_, config, ctx,
                     parallel::ShardedOptimizer::Options{.ledger = ledger});
  activations_.emplace(config.model, tokens, config.train.micro_batch_size, keep, ctx.device,
                       ledger,
                       parallel::make_expert_exchange(groups_.expert_parallel, config, tokens, keep,
                                                      ctx.device, dtype, ledger),
                       dtype);
  if (properties(ctx.device).graphs && config.train.cuda_graphs == CudaGraphs::auto_ &&
      activations_->exchange() == nullptr)
    graphs_.emplace(ctx);
  make_room(static_cast<std::size_t>(config.train.global_batch_size /
                                     (config.train.micro_batch_size * world.size())));
}

void Engine::initialize() {
  model_->parameters().initialize(ctx_, static_cast<std::uint64_t>(config_.seed));
}

void Engine::refresh() {
  model_->parameters().refresh(ctx_);
}

void Engine::warm_up(const Batch& batch) {
  nn::StepStatistics discarded;
  model_->forward_backward(ctx_, *activations_, view(batch), {}, discarded);
}

std::optional<StepOutcome> Engine::step(std::span<const Batch> batches, double lr,
                                        const StopQuestion& stop) {
  comm::Activity& activity = groups_.world.host().activity();
  ComputeClock clock(activity);
  const auto count = static_cast<std::int64_t>(batches.size());
  std::int64_t targets = 0;
  for (const Batch& b : batches) targets += b.num_targets;
  targets = comm::all_reduce_sum(groups_.world.host(), targets);
  const std::int64_t divisor = std::max<std::int64_t>(targets, 1);

  statistics_ = {};
  const std::int64_t lanes = optimizer_->lanes(), lane_length = count / lanes;
  GRIST_CHECK(count > 0 && count % lanes == 0, "{} micro-batches in {} lanes", count, lanes);
  nn::StepScale scale{.loss_scale = 1.0F / static_cast<float>(divisor),
                      .micro_batch_weight = 1.0F / static_cast<float>(count * layout_.world())};
  optimizer_->begin_step();
  make_room(batches.size());
  for (std::int64_t i = 0; i < count; ++i) {
    if (stop()) {
      wait(ctx_);
      return std::nullopt;
    }
    activity.enter("forward and backward");
    const bool last = i + 1 == count;
    scale.first = i % lane_length == 0;
    const auto number = static_cast<std::size_t>(i);
    start_micro_batch(batches[number], scale, number, last);
    if (!last && (i + 1) % lane_length == 0) optimizer_->lane_done();
  }
  const std::vector<std::vector<double>> values = collect(scale, batches.size());
  const double micro_batches = clock.lap();
  activity.enter("update");
  add_up(gather_rows(groups_.world.host(), values));

  StepOutcome out{
      .loss = statistics_.loss_sum / static_cast<double>(divisor), .lr = lr, .targets = targets};
  out.total = out.loss;
  for (const nn::LossTerm& term : nn::loss_terms(config_.model, statistics_))
    out.total += term.value;
  const OptimizerResult result = optimizer_->step(lr, out.total);
  out.grad_norm = result.grad_norm;
  out.applied = result.applied;
  if (out.applied) {
    model_->update_router_state(statistics_);
    refresh();
  }
  out.compute_seconds = {micro_batches, clock.lap()};
  return out;
}

// Its sums are there when the device is done.
void Engine::start_micro_batch(const Batch& batch, const nn::StepScale& scale, std::size_t number,
                               bool last) {
  const bool travels = last && layout_.world() > 1;  // else the sums are made in optimizer_->step()
  model_->forward_backward(ctx_, *activations_,
                           {.batch = view(batch),
                            .scale = scale,
                            .statistics = sums_.data() + number * activations_->statistics.bytes(),
                            .sink = travels ? &*optimizer_ : nullptr,
                            .graphs = graphs_ ? &*graphs_ : nullptr});
}

void Engine::make_room(std::size_t micro_batches) {
  const std::size_t bytes = micro_batches * activations_->statistics.bytes();
  if (sums_.size() >= bytes) return;
  constexpr std::string_view kLabel = "statistics of micro-batches";
  sums_ = {};
  sums_ = Buffer::pinned(ctx_.device, bytes, kLabel, ledger_);
}

// Waits for the step's micro-batches and adds their counts; their other sums are the result.
std::vector<std::vector<double>> Engine::collect(const nn::StepScale& scale, std::size_t count) {
  wait(ctx_);
  std::vector<std::vector<double>> values;
  for (std::size_t i = 0; i < count; ++i) {
    micro_batch_.reset();
    model_->collect(*activations_, scale, sums_.data() + i * activations_->statistics.bytes(),
                    micro_batch_);
    values.push_back(values_of(micro_batch_));
    add_counts();
  }
  return values;
}

// Whole numbers of the last micro-batch: their order does not matter.
void Engine::add_counts() {
  if (statistics_.layers.size() != micro_batch_.layers.size()) {
    statistics_ = micro_batch_;
    statistics_.reset();
  }
  std::vector<std::int64_t> now;
  nn::for_each_count(micro_batch_, [&](std::int64_t n) { now.push_back(n); });
  auto next = now.begin();
  nn::for_each_count(statistics_, [&](std::int64_t& sum) { sum += *next++; });
}

// The step's statistics over all ranks, from this rank's counts and the rows of all ranks.
void Engine::add_up(const std::vector<std::vector<double>>& values) {
  std::vector<std::int64_t> whole;
  nn::for_each_count(statistics_, [&](std::int64_t n) { whole.push_back(n); });
  comm::all_reduce_sum(groups_.world.host(), std::span(whole));
  auto next = whole.begin();
  nn::for_each_count(statistics_, [&](std::int64_t& n) { n = *next++; });
  for (const std::vector<double>& row : values) {
    auto value = row.begin();
    nn::for_each_sum(statistics_, [&](double& sum) { sum += *value++; });
  }
}

// Every rank takes part in every round: with expert parallelism all of a group must run forward.
// Batches past the end of the set are padding and count for nothing.
std::optional<Engine::Evaluation> Engine::evaluate(const ValidationSet& set, std::int64_t count,
                                                   const StopQuestion& stop) {
  const std::int64_t rows = config_.train.micro_batch_size;
  Evaluation out;
  Batch batch;
  for (std::int64_t first = 0; first < count; first += layout_.world()) {
    if (stop()) return std::nullopt;
    groups_.world.host().activity().enter("validation");
    const std::int64_t mine = first + layout_.rank();
    comm::agree(groups_.world.host(), [&] { set.batch(mine * rows, rows, batch); });
    const double loss = model_->evaluate(ctx_, *activations_, view(batch));
    const bool counts = mine < count;
    const std::vector<std::vector<double>> row = {
        {counts ? loss : 0.0, counts ? static_cast<double>(batch.num_targets) : 0.0}};
    for (const std::vector<double>& v : gather_rows(groups_.world.host(), row)) {
      out.loss_sum += v[0];
      out.targets += static_cast<std::int64_t>(v[1]);
    }
  }
  return out;
}

}  // namespace grist::train
