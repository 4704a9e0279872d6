#include "trial.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "engine.h"
#include "grist/comm/collectives.h"
#include "grist/config/batch_ramp.h"
#include "grist/core/check.h"
#include "grist/core/compute_device.h"
#include "grist/core/device.h"
#include "grist/core/stop.h"
#include "grist/optim/schedule.h"
#include "grist/parallel/choose_device.h"
#include "job.h"

namespace grist::train {

namespace {

// When the backward pass finishes a tensor: output first, then the layers from the last, the
// embedding.
std::int64_t backward_place(const std::string& name) {
  constexpr std::string_view kLayers = "model.layers.";
  constexpr std::int64_t kEmbedding = 1'000'000;
  if (name.starts_with("model.embed_tokens")) return kEmbedding;
  return name.starts_with(kLayers) ? kEmbedding - 1 - std::stoll(name.substr(kLayers.size())) : 0;
}

// This rank's reduced gradients as text: name, first element, count, floats.
std::string own_gradients(const Context& ctx, Engine& engine) {
  std::string out;
  for (const parallel::ShardPiece& p : engine.optimizer().saves()) {
    out += fmt::format("{} {} {}\n", p.tensor->name, p.tensor->shape.numel(), p.part.begin);
    const auto bytes = static_cast<std::size_t>(p.part.size()) * sizeof(float);
    out += fmt::format("{}\n", bytes);
    out.resize(out.size() + bytes);
    copy_out(ctx, out.data() + out.size() - bytes, p.grad);
  }
  return out;
}

using Gradients = std::map<std::string, std::vector<float>>;

void add_gradients(const std::string& text, Gradients& all) {
  const auto line = [&](std::size_t& at) {
    const std::size_t end = text.find('\n', at);
    const std::string s = text.substr(at, end - at);
    at = end + 1;
    return s;
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::string head = line(at);
    const std::size_t bytes = std::stoull(line(at));
    const std::size_t a = head.find(' '), b = head.find(' ', a + 1);
    std::vector<float>& values = all[head.substr(0, a)];
    values.resize(std::stoull(head.substr(a + 1, b - a - 1)));
    const std::size_t begin = std::stoull(head.substr(b + 1));
    GRIST_CHECK(begin + bytes / sizeof(float) <= values.size(), "{}", head);
    std::memcpy(values.data() + begin, text.data() + at, bytes);
    at += bytes;
  }
}

class Trial {
 public:
  Trial(const Config& config, comm::Communicator& world, const ReadSamples& samples)
      : config_(config),
        world_(world),
        samples_(samples),
        device_(parallel::choose_device(config, world, world.rank()).device,
                static_cast<int>(config.threads), nullptr, &world.activity().beats) {
    engine_.emplace(config_, world, device_.context(), nullptr);
    engine_->initialize();
    engine_->refresh();
  }

  TrialResult run(std::int64_t steps) {
    TrialResult result;
    std::int64_t consumed = 0;
    for (std::int64_t number = 1; number <= steps; ++number) {
      world_.activity().step = number;
      const std::int64_t samples = global_batch_size_at(config_.train, consumed);
      const double lr = learning_rate(config_.optim, number, config_.train.train_iters);
      const StepOutcome o = step(own_batches(consumed, samples), lr);
      result.steps.push_back(
          {o.loss, nn::loss_terms(config_.model, engine_->statistics()), o.grad_norm});
      if (number == 1) collect_gradients(result);
      consumed += samples;
    }
    return result;
  }

 private:
  StepOutcome step(std::span<const Batch> batches, double lr) {
    const auto outcome = engine_->step(
        batches, lr, [&] { return comm::all_reduce_max(world_, stop_signal()) != 0; });
    if (!outcome)
      comm::agree(world_, [] { fail(ExitCode::preempted, "the verification was stopped"); });
    return *outcome;
  }

  std::vector<Batch> own_batches(std::int64_t consumed, std::int64_t samples) const {
    const std::int64_t rows = config_.train.micro_batch_size;
    const std::int64_t own = samples / world_.size();
    std::vector<Batch> batches(static_cast<std::size_t>(own / rows));
    comm::agree(world_, [&] {
      std::int64_t first = consumed + world_.rank() * own;
      for (Batch& b : batches) {
        samples_(first, rows, b);
        first += rows;
      }
    });
    return batches;
  }

  void collect_gradients(TrialResult& result) {
    Gradients all;
    for (const std::string& text :
         comm::gather(world_, own_gradients(device_.context(), *engine_), 0))
      add_gradients(text, all);
    if (world_.rank() != 0) return;
    for (auto& [name, values] : all) result.gradients.push_back({name, std::move(values)});
    std::stable_sort(result.gradients.begin(), result.gradients.end(),
                     [](const NamedGradient& a, const NamedGradient& b) {
                       return backward_place(a.name) < backward_place(b.name);
                     });
  }

  const Config& config_;
  comm::Communicator& world_;
  const ReadSamples& samples_;
  ComputeDevice device_;
  std::optional<Engine> engine_;
};

}  // namespace

TrialResult run_trial(const Config& config, comm::Communicator& world, const ReadSamples& samples,
                      std::int64_t steps) {
  comm::agree(world, [&] { refuse_impossible_batches(config, world.size(), 0); });
  return Trial(config, world, samples).run(steps);
}

}  // namespace grist::train
