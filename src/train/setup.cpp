// From a configuration to a run that is ready for its next step.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "grist/config/compare.h"
#include "grist/config/parameters.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/stop.h"
#include "grist/data/prepare.h"
#include "grist/ops/linear.h"
#include "run.h"

namespace grist::train {

namespace {

// Resident memory of this process, bytes.
std::size_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    std::size_t kib = 0;
    if (word == "VmRSS:" && status >> kib) return kib * 1024;
  }
  return 0;
}

// The best rate of our own matmul on a square problem that fits the caches: what a step is compared
// with.
double measure_peak(const Context& ctx) {
  constexpr std::int64_t kSize = 768;
  const Shape shape = {kSize, kSize};
  Arena arena("peak measurement", Device::cpu, nullptr);
  const std::size_t x = arena.reserve(DType::f32, shape), y = arena.reserve(DType::f32, shape);
  const std::size_t w = arena.reserve_bytes(ops::weight_bytes(Device::cpu, DType::f32, shape));
  arena.commit();
  const ops::WeightView weight{arena.buffer().data() + w, Device::cpu, DType::f32, shape};
  ops::refresh_weight(ctx, {.out = weight, .master = arena.view(x, DType::f32, shape)});
  using Clock = std::chrono::steady_clock;
  double best = 1e9;
  const auto end = Clock::now() + std::chrono::milliseconds(60);  // a busy moment must not decide
  for (auto begin = Clock::now(); begin < end; begin = Clock::now()) {
    ops::linear_forward(ctx, {.y = arena.view(y, DType::f32, shape),
                              .x = arena.view(x, DType::f32, shape),
                              .w = weight});
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return 2.0 * kSize * kSize * kSize / best;
}

OptimizerEntry entry(const nn::NamedTensor& t, const Moments& moments, const OptimConfig& config) {
  const auto flat = [](const TensorView& v) { return reshape(v, {v.shape.numel()}); };
  double factor = 1.0;
  if (t.kind == nn::ParameterKind::router) factor = config.router_lr_factor;
  if (t.kind == nn::ParameterKind::expert) factor = config.expert_lr_factor;
  return {.name = t.name,
          .param = flat(t.master),
          .m = flat(moments.m(t)),
          .v = flat(moments.v(t)),
          .grad = flat(t.grad),
          .decay = t.decay,
          .lr_factor = factor};
}

// The files that Tokenizer::load reads, for the checkpoints.
std::vector<TextFile> tokenizer_texts(const std::filesystem::path& path) {
  const bool folder = std::filesystem::is_directory(path);
  const std::filesystem::path file = folder ? path / "tokenizer.json" : path;
  std::vector<TextFile> texts = {{"tokenizer.json", read_text(file)}};
  const std::filesystem::path beside = file.parent_path() / "tokenizer_config.json";
  if (std::filesystem::exists(beside))
    texts.push_back({"tokenizer_config.json", read_text(beside)});
  return texts;
}

}  // namespace

Run::Run(LoadedConfig loaded, const TrainOptions& options)
    : loaded_(std::move(loaded)),
      options_(options),
      program_bytes_(resident_bytes()),
      pool_(static_cast<int>(loaded_.config.threads)),
      scratch_(Device::cpu, &ledger_) {
  context_.pool = &pool_;
  context_.scratch = &scratch_;
  for (const std::string& note : loaded_.notes) log::info("{}", note);
  resolve_device();
  resolve_vocabulary();
  folder_.emplace(config().run.dir);
  folder_->check_owner(loaded_);
  open_data();
  build_model();
}

ExitCode Run::execute() {
  if (options_.dry_run) {
    model_->parameters().initialize(context_, static_cast<std::uint64_t>(config().seed));
    warm_up();
    log::info("{}", to_yaml(loaded_));
    print_plan();
    return ExitCode::ok;
  }
  if (stop_signal() != 0) {
    log::info("stopped by signal {} before the first step; nothing was written (exit code 75)",
              stop_signal());
    return ExitCode::preempted;
  }
  start_or_resume();
  started_step_ = counters_.step;
  if (counters_.step >= config().train.train_iters && !validation_due()) {
    log::info("{}: all {} steps are done; raise train.train_iters to go on",
              folder_->path().string(), config().train.train_iters);
    return ExitCode::ok;
  }
  warm_up();
  open_folder();
  print_plan();
  start_ = logged_ = Clock::now();
  logged_tokens_ = counters_.tokens;
  logged_step_ = counters_.step;
  return train();
}

void Run::resolve_device() const {
  if (config().device == "cuda")
    fail(ExitCode::device_unavailable,
         "device: cuda: this build has no CUDA backend; use device: cpu");
  if (config().parallel.expert_model_parallel_size != 1) {
    fail(ExitCode::config,
         "parallel.expert_model_parallel_size is {}, but this run has 1 rank; it must divide the "
         "number of ranks",
         config().parallel.expert_model_parallel_size);
  }
  log::info("device: cpu ({} threads){}", pool_.size(),
            config().device == "auto" ? ", chosen because this build has no CUDA backend" : "");
}

void Run::resolve_vocabulary() {
  if (config().data.tokenizer.empty()) return;
  tokenizer_ = Tokenizer::load(config().data.tokenizer);
  tokenizer_texts_ = tokenizer_texts(config().data.tokenizer);
  resolve_vocab_size(loaded_, tokenizer_->vocab_size(), config().data.tokenizer);
}

void Run::open_data() {
  const Config& c = config();
  samples_.emplace(c.data, c.seed, c.model.vocab_size);
  loader_.emplace(*samples_, c.train.micro_batch_size);
  const SampleOptions options{.seq_length = c.data.seq_length,
                              .vocab_size = c.model.vocab_size,
                              .mask_documents = c.data.mask_documents};
  for (const DataSourceConfig& source : c.data.validation)
    validation_.emplace_back(source, options);
  if (!tokenizer_) return;
  const std::string hash = tokenizer_hash(*tokenizer_);
  samples_->check_tokenizer(hash);
  for (const ValidationSet& set : validation_) set.check_tokenizer(hash);
}

void Run::build_model() {
  const Config& c = config();
  model_.emplace(c.model, Device::cpu, true, &ledger_);
  moments_.emplace(model_->parameters(), Device::cpu, &ledger_);
  std::vector<OptimizerEntry> entries;
  for (const nn::NamedTensor& t : model_->parameters().tensors())
    entries.push_back(entry(t, *moments_, c.optim));
  optimizer_.emplace(c.optim, std::move(entries), &ledger_);
  const std::int64_t tokens = c.train.micro_batch_size * c.data.seq_length;
  activations_.emplace(c.model, tokens, c.train.micro_batch_size, nn::keep_for(c.train),
                       Device::cpu, &ledger_);
  flops_per_token_ = training_flops_per_token(c.model, c.data.seq_length);
}

// Everything that the next step needs, in memory; nothing is written yet.
void Run::start_or_resume() {
  folder_->lock();
  if (resume()) return;
  checkpoints_.emplace(folder_->checkpoints(), new_uuid());
  if (config().init.from.empty()) {
    model_->parameters().initialize(context_, static_cast<std::uint64_t>(config().seed));
    log::info("starting at step 0 in {}", folder_->path().string());
  } else {
    start_from_parent();
  }
}

void Run::open_folder() {
  std::string yaml = to_yaml(loaded_);
  if (!parent_.is_null()) yaml = "# continued from " + parent_.dump() + "\n" + yaml;
  make_directories(folder_->path());
  folder_->lock();
  if (!unsaved_ || list_steps(folder_->checkpoints()).empty()) {
    folder_->write_config(yaml);
  } else {
    fail(ExitCode::cannot_create, "{}: another run began here meanwhile; choose another run.dir",
         folder_->path().string());
  }
  metrics_.emplace(folder_->metrics(), counters_.metrics_bytes);
  if (config().log.tensorboard) tensorboard_.emplace(folder_->tensorboard());
}

// Shapes are checked when tensors are read; this finds what shapes do not show, e.g. rope_theta.
void Run::check_same_model(const CheckpointReader& step) const {
  const std::string where = (step.path() / "config.yaml").string();
  const Config before = parse_config(step.text("config.yaml"), where, {}).config;
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
  const std::string& mode = config().checkpoint.resume;
  const std::filesystem::path& folder = folder_->checkpoints();
  const bool has_steps = !list_steps(folder).empty();
  if (mode == "never") {
    if (has_steps)
      fail(ExitCode::cannot_create,
           "{}: holds checkpoints and checkpoint.resume is never; choose another run.dir",
           folder.string());
    return false;
  }
  // Before loading: a step whose replacement was interrupted gets its name back.
  CheckpointFolder(folder, "sweep").sweep();
  const std::vector<TensorDestination> destinations = checkpoint_destinations(*model_, &*moments_);
  const std::optional<CheckpointReader> step = load_newest(folder, destinations);
  if (!step) {
    if (std::filesystem::exists(folder / "latest"))
      fail(ExitCode::bad_data,
           "{}: a checkpoint was committed here, but no step is left; restore one, or choose "
           "another "
           "run.dir to start again",
           folder.string());
    if (mode == "required")
      fail(ExitCode::not_found, "{}: no checkpoint, and checkpoint.resume is required",
           folder.string());
    return false;
  }
  check_same_model(*step);
  samples_->check_fingerprints(step->state().at("data"));
  counters_ = counters_from_json(step->state().at("counters"));
  optimizer_->set_adam_steps(counters_.adam_steps);
  if (const Json* parent = step->state().find("parent")) parent_ = *parent;
  saved_step_ = counters_.step;
  unsaved_ = false;
  checkpoints_.emplace(folder, step->manifest().uuid);
  log::info("resuming at step {} from {}", counters_.step, step->path().string());
  return true;
}

void Run::start_from_parent() {
  const bool keep = config().init.optimizer == "keep";
  const std::vector<StepInfo> steps = resolve_steps(config().init.from);
  const std::optional<CheckpointReader> step = find_newest_good(steps);
  if (!step) fail(ExitCode::bad_data, "init.from: {}: no usable checkpoint", config().init.from);
  const std::vector<TensorDestination> destinations =
      checkpoint_destinations(*model_, keep ? &*moments_ : nullptr);
  check_same_model(*step);
  step->read(destinations, {.ignore_prefixes = keep ? std::vector<std::string>{}
                                                    : std::vector<std::string>{"optim."}});
  if (keep) counters_.adam_steps = counters_from_json(step->state().at("counters")).adam_steps;
  optimizer_->set_adam_steps(counters_.adam_steps);
  parent_ = Json::object();
  parent_.set("path", step->path().string());
  parent_.set("uuid", step->manifest().uuid);
  parent_.set("step", step->step());
  parent_.set("optimizer", config().init.optimizer);
  log::info("starting at step 0 in {} from the weights of {} (moments: {})",
            folder_->path().string(), step->path().string(), config().init.optimizer);
}

// One micro-batch forward and backward before the first step: fills scratch memory, so that the
// memory table is whole. Its gradients are overwritten by the first step.
void Run::warm_up() {
  model_->parameters().refresh(context_);
  peak_flops_ = measure_peak(context_);
  Batch batch;
  samples_->batch(counters_.samples, config().train.micro_batch_size, batch);
  const auto whole = [](const std::vector<std::int32_t>& v) {
    return ConstTensorView(v.data(), DType::i32, {static_cast<std::int64_t>(v.size())});
  };
  nn::StepStatistics discarded;
  model_->forward_backward(
      context_, *activations_,
      {whole(batch.ids), whole(batch.targets), whole(batch.positions), whole(batch.cu_seqlens)}, {},
      discarded);
}

void Run::print_plan() const {
  const Config& c = config();
  const ParameterCount count = count_parameters(c.model);
  const auto millions = [](std::int64_t n) { return static_cast<double>(n) / 1e6; };
  const MoeConfig& moe = c.model.moe;
  const std::string ffn = moe.num_experts == 0
                              ? fmt::format("dense, {} wide", c.model.intermediate_size)
                              : fmt::format("{} experts of width {}, top-{}", moe.num_experts,
                                            moe.moe_intermediate_size, moe.num_experts_per_tok);
  log::info(
      "model: {:.2f}M parameters, {:.2f}M active per token ({:.2f}M without embeddings); {} layers "
      "x {}; {}",
      millions(count.total), millions(count.active), millions(count.active_non_embedding),
      c.model.num_hidden_layers, c.model.hidden_size, ffn);
  for (std::int64_t s = 0; s < samples_->num_sources(); ++s) {
    log::info("data: {}: {:.2f}M tokens an epoch", c.data.train[static_cast<std::size_t>(s)].path,
              static_cast<double>(samples_->num_tokens(s)) / 1e6);
  }
  log::info(
      "step: {} sequences of {} tokens in micro-batches of {}; {:.3g} GFLOP a token forward and "
      "backward; this machine's peak {:.0f} GFLOP/s",
      c.train.global_batch_size, c.data.seq_length, c.train.micro_batch_size,
      flops_per_token_ / 1e9, peak_flops_ / 1e9);
  log::info("memory:");
  for (const MemoryLedger::Entry& e : ledger_.entries())
    log::info("  {:<32}{:>12}", e.label, human_bytes(e.bytes));
  constexpr std::size_t kSaving = 2 * kCheckpointBlock;  // one block is filled, one written
  log::info("  {:<32}{:>12}", "checkpoint blocks (when saving)", human_bytes(kSaving));
  log::info("  {:<32}{:>12}", "program and libraries", human_bytes(program_bytes_));
  log::info("  {:<32}{:>12}", "sum", human_bytes(ledger_.total_bytes() + kSaving + program_bytes_));
}

}  // namespace grist::train
