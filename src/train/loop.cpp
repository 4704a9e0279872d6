// The life of a step, and what happens between steps.
#include <algorithm>
#include <cmath>

#include "grist/comm/collectives.h"
#include "grist/config/batch_ramp.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/stop.h"
#include "grist/data/prepare.h"
#include "grist/optim/schedule.h"
#include "grist/record/console.h"
#include "run.h"

namespace grist::train {

namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

bool due(std::int64_t step, std::int64_t interval) {
  return interval > 0 && step % interval == 0;
}

// What ranks agree on between steps, the largest wins: nothing, a signal's number, or this.
constexpr std::int64_t kOutOfTime = 1000;

}  // namespace

// A stop may come between a step and its validation, so a resumed run may begin with a validation;
// a save comes after it, so that a checkpoint's metrics hold it.
ExitCode Run::train() {
  for (;;) {
    poll_save();
    if (const auto code = stop_requested()) return *code;
    if (validation_due() && !validate()) continue;  // stopped inside
    const bool done = counters_.step >= last_step();
    if (unsaved_ && ((done && options_.save_at_end) ||
                     (counters_.step > started_step_ &&
                      due(counters_.step, config().checkpoint.save_interval))))
      save();
    if (done) break;
    if (const auto code = stop_requested()) return *code;
    step();
  }
  finish_save(true);
  log::info("finished: {} steps, {} tokens, in {}", counters_.step, counters_.tokens,
            record::duration(seconds(Clock::now() - start_)));
  return ExitCode::ok;
}

// A signal to any rank stops all of them; the same answer everywhere.
int Run::agreed_signal() const {
  return static_cast<int>(comm::all_reduce_max(world_, stop_signal()));
}

std::optional<ExitCode> Run::stop_requested() {
  const bool done = counters_.step >= last_step();
  const bool out_of_time = !done && config().train.max_hours > 0 &&
                           hours() >= config().train.max_hours &&
                           counters_.step > started_step_;  // each start makes progress
  std::int64_t reason = stop_signal();
  if (out_of_time) reason = kOutOfTime;
  reason = comm::all_reduce_max(world_, reason);
  if (reason == 0) return std::nullopt;
  if (unsaved_) save();
  finish_save(true);
  log::info("stopped at step {} by {}; saved; start the same command again to go on (exit code 75)",
            counters_.step,
            reason == kOutOfTime ? "train.max_hours" : "signal " + std::to_string(reason));
  return ExitCode::preempted;
}

std::int64_t Run::last_step() const {
  const std::int64_t all = length_.train_iters;
  return options_.stop_after > 0 ? std::min(options_.stop_after, all) : all;
}

double Run::hours() const {
  return seconds(Clock::now() - born_) / 3600;
}

// This rank's run of the step's micro-batches; those of its next step are read meanwhile.
const std::vector<Batch>& Run::own_batches() {
  const auto own_range = [&](std::int64_t first) {
    const std::int64_t count = global_batch_size_at(config().train, first) / world_.size();
    return SampleRange{first + world_.rank() * count, count};
  };
  world_.activity().enter("reading data");
  const std::int64_t now = counters_.samples;
  const bool last = counters_.step + 1 >= last_step();
  const std::vector<Batch>* batches = nullptr;
  comm::agree(world_, [&] {
    batches = &loader_->get(
        own_range(now),
        last ? SampleRange{} : own_range(now + global_batch_size_at(config().train, now)));
  });
  return *batches;
}

// One optimizer step; or nothing at all when a signal comes before its update, so that a stop waits
// for one micro-batch only.
void Run::step() {
  const std::int64_t number = counters_.step + 1;
  world_.activity().step = number;
  const std::int64_t samples = global_batch_size_at(config().train, counters_.samples);
  const double lr = learning_rate(length_.schedule, number, length_.train_iters);
  const std::vector<Batch>& batches = own_batches();
  const std::optional<StepOutcome> outcome =
      engine_->step(batches, lr, [&] { return agreed_signal() != 0; });
  if (!outcome) return;  // nothing has changed yet; the resumed run takes this step
  watch_stragglers(outcome->compute_seconds);
  if (outcome->targets == 0)
    log::warn(
        "step {}: none of its {} samples has a token to predict; only balancing losses and weight "
        "decay moved weights",
        number, samples);

  unsaved_ = true;
  counters_.step = number;
  counters_.samples += samples;
  counters_.tokens += samples * config().data.seq_length;
  if (outcome->applied) {
    counters_.updates = engine_->optimizer().updates();
    counters_.skipped_in_a_row = 0;
  } else {
    ++counters_.skipped;
    ++counters_.skipped_in_a_row;
    log::warn(
        "step {}: loss {:.6g} or gradient norm {:.6g} is not finite; the update is skipped, "
        "nothing has changed ({} in a row)",
        number, std::abs(outcome->total), std::abs(outcome->grad_norm), counters_.skipped_in_a_row);
  }
  if (due(number, config().log.interval) || number == last_step() || !outcome->applied)
    log_step(*outcome);
  if (counters_.skipped_in_a_row < config().train.max_nonfinite_steps) return;
  finish_save(false);  // so that what is kept is known
  comm::agree(world_, [&] { refuse_to_go_on(samples); });
}

void Run::watch_stragglers(std::span<const double> compute_seconds) {
  if (!stragglers_) return;
  for (const std::string& line : stragglers_->observe(comm::all_gather(world_, compute_seconds)))
    log::warn("step {}: {}", counters_.step, line);
}

void Run::refuse_to_go_on(std::int64_t samples) const {
  const std::string kept = saved_step_ < 0
                               ? "there is no checkpoint"
                               : fmt::format("the checkpoint of step {} is kept", saved_step_);
  fail(ExitCode::numeric,
       "{} steps in a row were not finite, the last one at step {} (samples {} to {}); {}. Lower "
       "optim.lr, or look at these samples",
       counters_.skipped_in_a_row, counters_.step, counters_.samples - samples,
       counters_.samples - 1, kept);
}

// Rank 0 writes; nothing that fails there ends the run.
template <class Record> void Run::tell(const Record& r) {
  if (recorder_) recorder_->write(r);
}

void Run::log_step(const StepOutcome& outcome) {
  const nn::StepStatistics& statistics = engine_->statistics();
  record::StepRecord r;
  r.step = counters_.step;
  r.tokens = counters_.tokens;
  r.samples = counters_.samples;
  r.loss = outcome.loss;
  r.terms = nn::loss_terms(config().model, statistics);
  r.grad_norm = outcome.grad_norm;
  r.lr = outcome.lr;
  r.skipped = counters_.skipped;
  r.layers = record::layer_records(statistics, config().model.moe.num_experts_per_tok);
  pace_.fill(r, length_.train_iters, Clock::now());
  tell(r);
}

bool Run::validation_due() const {
  if (validation_.empty() || counters_.step == 0 || counters_.validated_step == counters_.step)
    return false;
  return due(counters_.step, config().train.eval_interval) || counters_.step >= last_step();
}

// Empty: a signal came first.
std::optional<std::vector<record::ValidationSum>> Run::evaluate() {
  const std::int64_t rows = config().train.micro_batch_size;
  std::vector<record::ValidationSum> sums;
  for (const ValidationSet& set : validation_) {
    record::ValidationSum result{.name = set.name()};
    const std::int64_t all = (set.num_samples() + rows - 1) / rows;
    const std::int64_t count =
        config().train.eval_iters > 0 ? std::min(all, config().train.eval_iters) : all;
    const auto sum = engine_->evaluate(set, count, [&] { return agreed_signal() != 0; });
    if (!sum) return std::nullopt;
    result.loss_sum = sum->loss_sum;
    result.tokens = sum->targets;
    if (count == all) {
      result.bytes = set.source_bytes();
      result.all_tokens = set.num_tokens();
    }
    sums.push_back(result);
  }
  return sums;
}

// false: a signal came before the end. Nothing is recorded then, and the run validates again when
// it resumes.
bool Run::validate() {
  const auto begin = Clock::now();
  const auto sums = evaluate();
  if (!sums) return false;
  counters_.validated_step = counters_.step;
  unsaved_ = true;
  const auto time = Clock::now() - begin;
  pace_.leave_out(time);  // not training time
  record::ValidationRecord r = record::validation_record(*sums);
  r.step = counters_.step;
  r.tokens = counters_.tokens;
  r.seconds = seconds(time);
  tell(r);
  return true;
}

// The state as it is now. With async_save it is copied, and written while training goes on.
void Run::save() {
  const auto begin = Clock::now();
  world_.activity().enter("save");
  finish_save(false);
  if (recorder_) counters_.metrics_bytes = recorder_->sync();
  SaveRequest request;
  request.step = counters_.step;
  request.parent_step = saved_step_;
  request.layout = layout_json(engine_->layout());
  request.state.set("counters", to_json(counters_));
  request.state.set("data", samples_->fingerprints());
  if (config().checkpoint.resume_step > 0)
    request.state.set("resume_step", config().checkpoint.resume_step);
  if (tokenizer_) request.state.set("tokenizer", tokenizer_hash(*tokenizer_));
  if (!parent_.is_null()) request.state.set("parent", parent_);
  request.shards = {checkpoint_slices(*engine_)};
  request.texts = {{"config.yaml", to_yaml(loaded_)}};
  request.texts.insert(request.texts.end(), tokenizer_texts_.begin(), tokenizer_texts_.end());
  saver_->start(std::move(request));
  saving_ = true;
  unsaved_ = false;
  if (!config().checkpoint.async_save) finish_save(false);
  pace_.leave_out(Clock::now() - begin);  // not training time
}

// Says how the save went that was being written, once it has ended on all ranks.
void Run::poll_save() {
  if (saving_ && comm::all_reduce_max(world_, saver_->busy() ? 1 : 0) == 0) finish_save(false);
}

// Waits for the save that is being written, if there is one. A failed one is an error when it
// `must` succeed or the configuration wants that.
void Run::finish_save(bool must) {
  if (!saving_) return;
  world_.activity().enter("finishing a save");
  const std::optional<SaveVerdict> v = saver_->finish();
  saving_ = false;
  if (!v->error) {
    saved_step_ = v->step;
    log::info("saved step {} ({}) in {:.1f} s, training paused for {:.2f} s", v->step,
              human_bytes(v->bytes), v->seconds, v->pause);
    return;
  }
  unsaved_ = true;
  if (must || config().checkpoint.on_error == OnSaveError::stop)
    comm::agree(world_, [&] { throw *v->error; });
  log::warn("{}; training goes on, and the next save tries again", v->error->what());
}

}  // namespace grist::train
