#include "length.h"

#include "grist/config/batch_ramp.h"
#include "grist/config/zero_rate.h"
#include "grist/core/check.h"

namespace grist::train {

Length run_length(const LoadedConfig& loaded, const Counters& done) {
  const TrainConfig& train = loaded.config.train;
  const Consumed consumed{.steps = done.step, .samples = done.samples, .tokens = done.tokens};
  Length length{.train_iters = train.train_iters, .schedule = loaded.config.optim};
  if (train.train_tokens > 0)
    length.train_iters = iterations_for_tokens(train, loaded.config.data.seq_length, consumed);
  length.samples = samples_after(train, length.train_iters, consumed);
  OptimConfig& o = length.schedule;
  if (!is_derived(loaded, "optim.lr_decay_iters")) {
    if (const std::string wrong = zero_rate_problem(o, done.step, length.train_iters);
        !wrong.empty())
      fail(ExitCode::config, "optim.lr_decay_iters: {}", wrong);
    return length;
  }
  o.lr_decay_iters = length.train_iters;
  if (done.step < o.lr_warmup_iters && o.lr_warmup_iters + o.lr_wsd_decay_iters > o.lr_decay_iters)
    fail(ExitCode::config,
         "train.train_tokens: {} end at step {} after what is consumed; lr_warmup_iters {} and "
         "lr_wsd_decay_iters {} do not fit into that",
         loaded.config.train.train_tokens, length.train_iters, o.lr_warmup_iters,
         o.lr_wsd_decay_iters);
  return length;
}

std::string nothing_left(const Config& config, const Counters& done) {
  const TrainConfig& train = config.train;
  const bool budget = train.train_tokens > 0;
  const std::int64_t wanted = budget ? train.train_tokens : train.train_iters;
  const std::int64_t reached = budget ? done.tokens : done.step;
  // A budget is rounded up to whole steps.
  const std::int64_t rounding = budget ? train.global_batch_size * config.data.seq_length : 1;
  const char* key = budget ? "train.train_tokens" : "train.train_iters";
  const std::string unit = budget ? "tokens" : "steps";
  if (reached - wanted < rounding)
    return fmt::format("all {} {} are done; raise {} to go on", reached, unit, key);
  return fmt::format(
      "the checkpoint has done {} {}, more than {} {}; nothing is trained. Raise {} above {} to go "
      "on, or take an earlier checkpoint with checkpoint.resume_step",
      reached, unit, key, wanted, key, reached);
}

}  // namespace grist::train
