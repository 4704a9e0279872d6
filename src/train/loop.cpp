// The life of a step, and what happens between steps.
#include <algorithm>
#include <cmath>

#include "grist/config/batch_ramp.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/stop.h"
#include "grist/data/prepare.h"
#include "grist/optim/schedule.h"
#include "run.h"

namespace grist::train {

namespace {

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

bool due(std::int64_t step, std::int64_t interval) {
  return interval > 0 && step % interval == 0;
}

nn::Batch view(const Batch& b) {
  const auto whole = [](const std::vector<std::int32_t>& v) {
    return ConstTensorView(v.data(), DType::i32, {static_cast<std::int64_t>(v.size())});
  };
  return {whole(b.ids), whole(b.targets), whole(b.positions), whole(b.cu_seqlens)};
}

}  // namespace

// A stop may come between a step and its validation, so a resumed run may begin with a validation;
// a save comes after it, so that a checkpoint's metrics hold it.
ExitCode Run::train() {
  const TrainConfig& t = config().train;
  for (;;) {
    if (const auto code = stop_requested()) return *code;
    if (validation_due() && !validate()) continue;  // stopped inside
    const bool done = counters_.step >= t.train_iters;
    if (unsaved_ && (done || (counters_.step > started_step_ &&
                              due(counters_.step, config().checkpoint.save_interval))))
      save();
    if (done) break;
    if (const auto code = stop_requested()) return *code;
    step();
  }
  log::info("finished: {} steps, {} tokens, in {}", counters_.step, counters_.tokens,
            duration(seconds(Clock::now() - start_)));
  return ExitCode::ok;
}

std::optional<ExitCode> Run::stop_requested() {
  const int signal = stop_signal();
  const bool out_of_time = config().train.max_hours > 0 && hours() >= config().train.max_hours &&
                           counters_.step > started_step_;  // each start makes progress
  const bool done = counters_.step >= config().train.train_iters;
  if (signal == 0 && (!out_of_time || done)) return std::nullopt;
  if (unsaved_) save();
  log::info("stopped at step {} by {}; saved; start the same command again to go on (exit code 75)",
            counters_.step, signal != 0 ? "signal " + std::to_string(signal) : "train.max_hours");
  return ExitCode::preempted;
}

double Run::hours() const {
  return seconds(Clock::now() - born_) / 3600;
}

// The step's micro-batches; those of the next step are read meanwhile.
const std::vector<Batch>& Run::global_batch() {
  const auto range_at = [&](std::int64_t first) {
    return SampleRange{first, global_batch_size_at(config().train, first)};
  };
  const SampleRange now = range_at(counters_.samples);
  const bool last = counters_.step + 1 >= config().train.train_iters;
  return loader_->get(now, last ? SampleRange{} : range_at(now.first + now.count));
}

// One optimizer step; or nothing at all when a signal comes before its update, so that a stop waits
// for one micro-batch only.
void Run::step() {
  const std::vector<Batch>& batches = global_batch();
  const std::int64_t samples =
      static_cast<std::int64_t>(batches.size()) * config().train.micro_batch_size;
  std::int64_t targets = 0;
  for (const Batch& b : batches) targets += b.num_targets;
  statistics_.reset();
  nn::StepScale scale{.loss_scale = 1.0F / static_cast<float>(std::max<std::int64_t>(targets, 1)),
                      .micro_batch_weight = 1.0F / static_cast<float>(batches.size()),
                      .first = true};
  for (const Batch& b : batches) {
    if (stop_signal() != 0) return;  // nothing has changed yet; the resumed run takes this step
    model_->forward_backward(context_, *activations_, view(b), scale, statistics_);
    scale.first = false;
  }
  const double loss =
      statistics_.loss_sum / static_cast<double>(std::max<std::int64_t>(targets, 1));
  const double total = loss + statistics_.aux_loss() + statistics_.z_loss();

  const std::int64_t number = counters_.step + 1;
  const double lr = learning_rate(config().optim, number, config().train.train_iters);
  const OptimizerResult result = optimizer_->step(context_, {.lr = lr, .loss = total});
  unsaved_ = true;
  counters_.step = number;
  counters_.samples += samples;
  counters_.tokens += samples * config().data.seq_length;
  if (result.applied) {
    counters_.adam_steps = optimizer_->adam_steps();
    counters_.skipped_in_a_row = 0;
    model_->update_router_state(statistics_);
    model_->parameters().refresh(context_);
  } else {
    ++counters_.skipped;
    ++counters_.skipped_in_a_row;
    log::warn(
        "step {}: loss {:.6g} or gradient norm {:.6g} is not finite; the update is skipped, "
        "nothing has changed ({} in a row)",
        number, std::abs(total), std::abs(result.grad_norm), counters_.skipped_in_a_row);
  }
  if (due(number, config().log.interval) || number == config().train.train_iters || !result.applied)
    log_step(loss, result.grad_norm, lr);
  if (counters_.skipped_in_a_row >= config().train.max_nonfinite_steps) refuse_to_go_on(samples);
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

void Run::log_step(double loss, double grad_norm, double lr) {
  const auto now = Clock::now();
  StepRecord r;
  r.step = counters_.step;
  r.tokens = counters_.tokens;
  r.samples = counters_.samples;
  r.loss = loss;
  r.aux_loss = statistics_.aux_loss();
  r.z_loss = statistics_.z_loss();
  r.grad_norm = grad_norm;
  r.lr = lr;
  r.skipped = counters_.skipped;
  r.layers = layer_records(statistics_, config().model.moe.num_experts_per_tok);
  r.seconds = seconds(now - logged_);
  r.tokens_per_second = static_cast<double>(counters_.tokens - logged_tokens_) / r.seconds;
  r.flops_per_second = r.tokens_per_second * flops_per_token_;
  r.peak_fraction = peak_flops_ > 0 ? r.flops_per_second / peak_flops_ : 0;
  const auto steps = static_cast<double>(counters_.step - logged_step_);
  r.eta_seconds =
      r.seconds / steps * static_cast<double>(config().train.train_iters - counters_.step);
  metrics_->append(to_json(r));
  log::info("{}", console_line(r, config().train.train_iters));
  if (tensorboard_) {
    const Scalar scalars[] = {
        {"train/loss", r.loss},      {"train/aux_loss", r.aux_loss},
        {"train/z_loss", r.z_loss},  {"train/grad_norm", r.grad_norm},
        {"train/lr", r.lr},          {"train/tokens_per_second", r.tokens_per_second},
        {"moe/max_vio", max_vio(r)}, {"moe/dropped_fraction", dropped_fraction(r)}};
    tensorboard_->write(r.step, scalars);
  }
  logged_ = now;
  logged_tokens_ = counters_.tokens;
  logged_step_ = counters_.step;
}

bool Run::validation_due() const {
  if (validation_.empty() || counters_.step == 0 || counters_.validated_step == counters_.step)
    return false;
  return due(counters_.step, config().train.eval_interval) ||
         counters_.step >= config().train.train_iters;
}

// Fills record.sets; false: a signal came first.
bool Run::evaluate(ValidationRecord& record) {
  const std::int64_t rows = config().train.micro_batch_size;
  Batch batch;
  for (const ValidationSet& set : validation_) {
    ValidationRecord::Set result{.name = set.name()};
    const std::int64_t all = (set.num_samples() + rows - 1) / rows;
    const std::int64_t count =
        config().train.eval_iters > 0 ? std::min(all, config().train.eval_iters) : all;
    for (std::int64_t i = 0; i < count; ++i) {
      if (stop_signal() != 0) return false;
      set.batch(i * rows, rows, batch);
      result.loss_sum += model_->evaluate(context_, *activations_, view(batch));
      result.tokens += batch.num_targets;
    }
    if (count == all) {
      result.bytes = set.source_bytes();
      result.all_tokens = set.num_tokens();
    }
    record.sets.push_back(result);
  }
  return true;
}

// false: a signal came before the end. Nothing is recorded then, and the run validates again when
// it resumes.
bool Run::validate() {
  const auto begin = Clock::now();
  ValidationRecord record{.step = counters_.step, .tokens = counters_.tokens};
  if (!evaluate(record)) return false;
  counters_.validated_step = counters_.step;
  unsaved_ = true;
  const auto now = Clock::now();
  record.seconds = seconds(now - begin);
  logged_ += now - begin;  // not training time
  metrics_->append(to_json(record));
  log::info("{}", console_line(record));
  if (tensorboard_) {
    for (const ValidationRecord::Set& s : record.sets) {
      const std::string tag = "validation/" + s.name;
      const Scalar scalars[] = {
          {tag, s.loss_sum / static_cast<double>(std::max<std::int64_t>(s.tokens, 1))}};
      tensorboard_->write(record.step, scalars);
    }
  }
  return true;
}

void Run::save() {
  const auto begin = Clock::now();
  metrics_->sync();
  counters_.metrics_bytes = metrics_->bytes();
  SaveRequest request;
  request.step = counters_.step;
  request.parent_step = saved_step_;
  request.layout.set("world", 1);
  request.state.set("counters", to_json(counters_));
  request.state.set("data", samples_->fingerprints());
  if (tokenizer_) request.state.set("tokenizer", tokenizer_hash(*tokenizer_));
  if (!parent_.is_null()) request.state.set("parent", parent_);
  request.shards = {checkpoint_slices(*model_, *moments_)};
  request.texts = {{"config.yaml", to_yaml(loaded_)}};
  request.texts.insert(request.texts.end(), tokenizer_texts_.begin(), tokenizer_texts_.end());
  const SavedStep saved = checkpoints_->save(request);
  saved_step_ = counters_.step;
  unsaved_ = false;
  checkpoints_->prune(config().checkpoint.keep);
  const auto now = Clock::now();
  logged_ += now - begin;
  log::info("saved step {} ({}) in {:.1f} s", counters_.step, human_bytes(saved.bytes),
            seconds(now - begin));
}

}  // namespace grist::train
