// Where a run begins: at step 0, at its own newest good checkpoint, or from another run's weights.
// What files say is read and decided by rank 0 and told to the others.
#include "alive.h"
#include "chosen_step.h"
#include "grist/comm/collectives.h"
#include "grist/config/compare.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/data/prepare.h"
#include "run.h"

namespace grist::train {

// Everything that the next step needs, in memory; nothing is written yet.
void Run::start_or_resume() {
  leader_does([&] { folder_->lock(); });
  if (!resume()) {
    open_checkpoints(new_uuid());
    if (config().init.from.empty()) {
      engine_->initialize();
      log::info("starting at step 0 in {}", folder_->path().string());
    } else {
      start_from_parent();
    }
  }
  plan_length();
}

// Once it is known what is consumed: how many steps are to come, and whether so many ranks can
// share them.
void Run::plan_length() {
  comm::agree(world_, [&] {
    refuse_impossible_batches(config(), world_.size(), counters_.samples);
    length_ = run_length(loaded_, counters_);
  });
  if (length_.train_iters != config().train.train_iters)
    log::info("train.train_tokens {}: {} are consumed, so the run ends at step {}",
              config().train.train_tokens, counters_.tokens, length_.train_iters);
}

// A run has one name, drawn by rank 0.
void Run::open_checkpoints(const std::string& uuid) {
  const std::string name = comm::broadcast(world_, uuid, 0);
  const Alive alive(world_.activity());
  saver_.emplace(world_, folder_->checkpoints(), name, checkpoint_slices(*engine_),
                 BackgroundSaveOptions{.keep = config().checkpoint.keep,
                                       .context = &context(),
                                       .asynchronous = config().checkpoint.async_save,
                                       .damaged = damaged_steps_},
                 &ledger_);
}

void Run::open_folder() {
  std::string yaml = to_yaml(loaded_);
  if (!parent_.is_null()) yaml = "# continued from " + parent_.dump() + "\n" + yaml;
  leader_does([&] {
    make_directories(folder_->path());
    folder_->lock();
    if (unsaved_ && !list_steps(folder_->checkpoints()).empty())
      fail(ExitCode::cannot_create, "{}: another run began here meanwhile; choose another run.dir",
           folder_->path().string());
    folder_->write_config(yaml);
    recorder_.emplace(*folder_, record::RecorderOptions{.metrics_bytes = counters_.metrics_bytes,
                                                        .train_iters = length_.train_iters,
                                                        .tensorboard = config().log.tensorboard});
  });
}

// Shapes are checked when tensors are read; this finds what shapes do not show, e.g. rope_theta.
void Run::check_same_model(const CheckpointReader& step) const {
  const std::string where = (step.path() / "config.yaml").string();
  const Config before = saved_config(step.text("config.yaml"), where);
  for (const ConfigDifference& d : config_differences(before, config())) {
    if (!d.architecture) continue;
    fail(ExitCode::bad_data, "{}: of another architecture: {} is {} there and {} here",
         step.path().string(), d.key, d.before.empty() ? "not set" : d.before,
         d.after.empty() ? "not set" : d.after);
  }
  const Json* tokenizer = step.state().find("tokenizer");
  if (tokenizer != nullptr && tokenizer_ && tokenizer->as_string() != tokenizer_hash(*tokenizer_))
    fail(ExitCode::bad_data,
         "{}: trained with another tokenizer than {}; use the one in its folder",
         step.path().string(), config().data.tokenizer);
}

bool Run::resume() {
  const bool never = config().checkpoint.resume == ResumeMode::never;
  const std::filesystem::path& folder = folder_->checkpoints();
  leader_does([&] {
    if (never && !list_steps(folder).empty())
      fail(ExitCode::cannot_create,
           "{}: holds checkpoints and checkpoint.resume is never; choose another run.dir",
           folder.string());
    // Before loading: a step whose replacement was interrupted gets its name back.
    if (!never) CheckpointFolder(folder, "sweep").sweep();
  });
  if (never) return false;
  StateLoad state(*engine_, true);
  const ReadOptions options{.passed_over = &damaged_steps_};
  const ChosenSteps chosen = choose_steps(world_, folder, config().checkpoint.resume_step);
  const std::optional<CheckpointReader> step =
      load_first_good(world_, chosen.candidates, state.destinations(), options);
  if (!step) {
    leader_does([&] { refuse_missing_steps(); });
    return false;
  }
  state.finish();
  comm::agree(world_, [&] {
    check_same_model(*step);
    samples_->check_fingerprints(step->state().at("data"));
  });
  counters_ = counters_from_json(step->state().at("counters"));
  engine_->optimizer().set_updates(counters_.updates);
  if (const Json* parent = step->state().find("parent")) parent_ = *parent;
  saved_step_ = counters_.step;
  unsaved_ = false;
  leader_does([&] { set_aside(folder, chosen.set_aside, counters_.step); });
  open_checkpoints(step->manifest().uuid);
  log::info("resuming at step {} from {}{}", counters_.step, step->path().string(),
            other_layout(*step));
  return true;
}

// There is no step to load: may the run begin at step 0?
void Run::refuse_missing_steps() const {
  const std::filesystem::path& folder = folder_->checkpoints();
  if (std::filesystem::exists(folder / "latest"))
    fail(ExitCode::bad_data,
         "{}: a checkpoint was committed here, but no step is left; restore one, or choose another "
         "run.dir to start again",
         folder.string());
  if (config().checkpoint.resume == ResumeMode::required)
    fail(ExitCode::not_found, "{}: no checkpoint, and checkpoint.resume is required",
         folder.string());
}

// " (saved with {axes and sizes})", when another layout saved it.
std::string Run::other_layout(const CheckpointReader& step) const {
  const Json now = layout_json(engine_->layout());
  const Json& then = step.manifest().layout;
  return then.dump() == now.dump() ? "" : fmt::format(" (saved with {})", then.dump());
}

void Run::start_from_parent() {
  const bool keep = config().init.optimizer == InitOptimizer::keep;
  std::vector<StepInfo> steps;  // rank 0's count
  leader_does([&] { steps = resolve_steps(config().init.from); });
  StateLoad state(*engine_, keep);
  const std::optional<CheckpointReader> step = load_first_good(
      world_, steps, state.destinations(),
      {.ignore_prefixes = keep ? std::vector<std::string>{}
                               : std::vector<std::string>{std::string(kStatePrefix)}});
  if (!step)
    comm::agree(world_, [&] {
      fail(ExitCode::bad_data, "init.from: {}: no usable checkpoint", config().init.from);
    });
  comm::agree(world_, [&] { check_same_model(*step); });
  state.finish();
  if (keep) counters_.updates = counters_from_json(step->state().at("counters")).updates;
  engine_->optimizer().set_updates(counters_.updates);
  parent_ = Json::object();
  parent_.set("path", step->path().string());
  parent_.set("uuid", step->manifest().uuid);
  parent_.set("step", step->step());
  parent_.set("optimizer", std::string(word(config().init.optimizer)));
  log::info("starting at step 0 in {} from the weights of {} (optimizer state: {})",
            folder_->path().string(), step->path().string(), word(config().init.optimizer));
}

}  // namespace grist::train
