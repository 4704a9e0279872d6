#include "grist/config/batch_ramp.h"

#include <algorithm>
#include <limits>

#include "grist/core/check.h"

namespace grist {

namespace {

struct Stage {
  std::int64_t batch;
  std::int64_t steps;  // at this batch size
};

// The ramp after `consumed` samples as stages of constant size; the last one never ends.
template <class Visit>
void for_each_stage(const TrainConfig& train, std::int64_t consumed, const Visit& visit) {
  while (true) {
    const std::int64_t batch = global_batch_size_at(train, consumed);
    if (batch == train.global_batch_size) {
      visit(Stage{batch, std::numeric_limits<std::int64_t>::max()});
      return;
    }
    const std::int64_t start = train.rampup_batch_size[0], increment = train.rampup_batch_size[1];
    const std::int64_t increments = (train.global_batch_size - start) / increment;
    const std::int64_t next = (batch - start) / increment + 1;
    // The first consumed count with floor(consumed * increments / samples) >= next.
    const std::int64_t samples = train.rampup_batch_size[2];
    const std::int64_t end = (next * samples + increments - 1) / increments;
    const std::int64_t steps = (end - consumed + batch - 1) / batch;
    if (!visit(Stage{batch, steps})) return;
    consumed += steps * batch;
  }
}

}  // namespace

std::int64_t global_batch_size_at(const TrainConfig& train, std::int64_t consumed_samples) {
  if (train.rampup_batch_size.empty()) return train.global_batch_size;
  const std::int64_t start = train.rampup_batch_size[0], increment = train.rampup_batch_size[1];
  const std::int64_t samples = train.rampup_batch_size[2];
  if (start == train.global_batch_size || consumed_samples >= samples)
    return train.global_batch_size;
  const std::int64_t increments = (train.global_batch_size - start) / increment;
  return start + consumed_samples * increments / samples * increment;
}

std::int64_t iterations_for_tokens(const TrainConfig& train, std::int64_t seq_length,
                                   const Consumed& done) {
  const std::int64_t tokens = std::max<std::int64_t>(train.train_tokens - done.tokens, 0);
  std::int64_t left = (tokens + seq_length - 1) / seq_length;  // samples
  std::int64_t iters = done.steps;
  if (left == 0) return iters;
  for_each_stage(train, done.samples, [&](Stage stage) {
    const std::int64_t steps = std::min(stage.steps, (left + stage.batch - 1) / stage.batch);
    iters += steps;
    left -= std::min(left, steps * stage.batch);
    return left > 0;
  });
  return iters;
}

std::int64_t samples_after(const TrainConfig& train, std::int64_t iters, const Consumed& done) {
  std::int64_t samples = done.samples;
  std::int64_t left = std::max<std::int64_t>(iters - done.steps, 0);
  for_each_stage(train, done.samples, [&](Stage stage) {
    const std::int64_t steps = std::min(stage.steps, left);
    samples += steps * stage.batch;
    left -= steps;
    return left > 0;
  });
  return samples;
}

std::vector<std::int64_t> batch_sizes_from(const TrainConfig& train,
                                           std::int64_t consumed_samples) {
  std::vector<std::int64_t> sizes;
  for_each_stage(train, consumed_samples, [&](Stage stage) {
    sizes.push_back(stage.batch);
    return true;
  });
  return sizes;
}

std::string ramp_problem(const TrainConfig& train) {
  const auto& ramp = train.rampup_batch_size;
  if (ramp.empty()) return "";
  if (ramp.size() != 3)
    return fmt::format("{} numbers; want [start, increment, samples]", ramp.size());
  constexpr std::int64_t kMaxSamples = 1LL << 36;  // times the number of increments fits 64 bits
  if (ramp[0] < 1 || ramp[1] < 1 || ramp[2] < 1 || ramp[2] > kMaxSamples)
    return fmt::format("[{}, {}, {}]; want [start, increment, samples], each 1 to {}", ramp[0],
                       ramp[1], ramp[2], kMaxSamples);
  if (ramp[0] > train.global_batch_size)
    return fmt::format("starts at {}, more than global_batch_size {}", ramp[0],
                       train.global_batch_size);
  if ((train.global_batch_size - ramp[0]) % ramp[1] != 0)
    return fmt::format("global_batch_size {} - start {} is not a multiple of the increment {}",
                       train.global_batch_size, ramp[0], ramp[1]);
  if (ramp[0] % train.micro_batch_size != 0 || ramp[1] % train.micro_batch_size != 0)
    return fmt::format("start {} and increment {} must be multiples of micro_batch_size {}",
                       ramp[0], ramp[1], train.micro_batch_size);
  return "";
}

}  // namespace grist
