// From a configuration to data, model and memory (start.cpp goes on from there).
#include <algorithm>
#include <fstream>

#include "grist/comm/collectives.h"
#include "grist/config/parameters.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/host.h"
#include "grist/core/log.h"
#include "grist/core/stop.h"
#include "grist/data/prepare.h"
#include "grist/parallel/choose_device.h"
#include "peak.h"
#include "run.h"

namespace grist::train {

namespace {

constexpr std::size_t kSavingBytes = 2 * kCheckpointBlock;  // one is filled, one written

// Muennighoff et al. 2023 (arXiv 2305.16264): four epochs are worth about as much as new data,
// beyond sixteen next to nothing.
constexpr int kManyEpochs = 16;

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

}  // namespace

Run::Run(LoadedConfig loaded, const TrainOptions& options, Job& job)
    : loaded_(std::move(loaded)),
      options_(options),
      world_(job.world()),
      program_bytes_(resident_bytes()),
      choice_(parallel::choose_device(loaded_.config, world_, job.local_rank())),
      device_(choice_.device, job.threads(loaded_.config.threads), &ledger_,
              &world_.activity().beats) {
  if (options_.dry_run) ledger_.plan();
  for (const std::string& note : loaded_.notes) log::info("{}", note);
  comm::agree(world_, [&] {
    say_device();
    if (!config().data.tokenizer.empty()) {
      tokenizer_ = resolve_vocabulary(loaded_);
      tokenizer_texts_ = tokenizer_texts(config().data.tokenizer);
    }
    folder_.emplace(config().run.dir);
    if (leader()) folder_->check_owner(loaded_);
    open_data();
  });
  check_same_data();
  engine_.emplace(config(), world_, context(), &ledger_);
  if (world_.size() > 1) {
    const std::vector<std::string> hosts = comm::all_gather(world_, job.host());
    ranks_here_ = static_cast<std::size_t>(std::ranges::count(hosts, job.host()));
    stragglers_.emplace(hosts, std::vector<std::string>{"forward and backward", "update"});
  }
  pace_ = record::Pace(training_flops_per_token(config().model, config().data.seq_length));
}

void Run::leader_does(const std::function<void()>& work) {
  comm::agree(world_, [&] {
    if (leader()) work();
  });
}

ExitCode Run::execute() {
  if (options_.dry_run) {
    open_checkpoints(new_uuid());  // its copy of the state belongs to the memory
    refuse_shortfall();            // before anything is written to what was planned
    engine_->initialize();
    plan_length();
    warm_up();
    log::info("{}", to_yaml(loaded_));
    print_plan();
    return ExitCode::ok;
  }
  if (const int signal = agreed_signal(); signal != 0) {
    log::info("stopped by signal {} before the first step; nothing was written (exit code 75)",
              signal);
    return ExitCode::preempted;
  }
  start_or_resume();
  started_step_ = counters_.step;
  if (counters_.step >= length_.train_iters && !validation_due()) {
    log::info("{}: {}", folder_->path().string(), nothing_left(config(), counters_));
    return ExitCode::ok;
  }
  warm_up();
  open_folder();
  print_plan();
  start_ = Clock::now();
  pace_.start(counters_.step, counters_.tokens, start_);
  return train();
}

void Run::say_device() const {
  const std::string each = world_.size() == 1 ? "" : " a rank";
  const int threads = device_.threads();
  if (properties(choice_.device).asynchronous) {
    const bool bf16 = nn::activation_dtype(config(), choice_.device) == DType::bf16;
    log::info("device: {} ({}{}), {}{}", name_of(choice_.device),
              runtime(choice_.device).describe(), each, bf16 ? "bf16" : "fp32",
              config().device == WantedDevice::auto_ ? ", chosen because there is a GPU" : "");
    return;
  }
  log::info("device: cpu ({} thread{}{}){}", threads, threads == 1 ? "" : "s", each,
            config().device == WantedDevice::auto_
                ? fmt::format(", chosen because {}", choice_.why_not_cuda)
                : "");
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

// Files that are not the same on all machines would show nowhere else.
void Run::check_same_data() const {
  std::vector<std::string> seen;
  const Json train = samples_->fingerprints();
  for (const Json& source : train.at("sources").as_array())
    seen.push_back(fmt::format("{} ({})", source.at("path").as_string(),
                               source.at("fingerprint").as_string()));
  for (const ValidationSet& set : validation_)
    seen.push_back(fmt::format("{} ({} tokens, {} to predict)", set.name(), set.num_tokens(),
                               set.num_targets()));
  if (tokenizer_)
    seen.push_back(fmt::format("{} ({})", config().data.tokenizer, tokenizer_hash(*tokenizer_)));
  std::string difference;
  for (const std::string& own : seen) {  // as many on every rank: the configuration is the same
    const std::string leaders = comm::broadcast(world_, own, 0);
    if (own != leaders && difference.empty())
      difference = fmt::format("{} here is {} on rank 0", own, leaders);
  }
  comm::agree(world_, [&] {
    if (!difference.empty())
      fail(ExitCode::bad_data, "{}; all ranks must see the same files", difference);
  });
}

// One micro-batch forward and backward before the first step: fills scratch memory, so that the
// memory table is whole. Its gradients are overwritten by the first step.
void Run::warm_up() {
  world_.activity().enter("warm-up");
  engine_->refresh();
  pace_.set_peak_flops(comm::all_reduce_sum(
      world_, measure_peak(context(), nn::activation_dtype(config(), context().device))));
  Batch batch;
  const std::int64_t rows = config().train.micro_batch_size;
  comm::agree(world_,
              [&] { samples_->batch(counters_.samples + world_.rank() * rows, rows, batch); });
  engine_->warm_up(batch);
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
    const std::string& path = c.data.train[static_cast<std::size_t>(s)].path;
    const double epochs = samples_->epochs(s, length_.samples);
    log::info("data: {}: {:.2f}M tokens an epoch, {:.2f} epochs in {} steps", path,
              static_cast<double>(samples_->num_tokens(s)) / 1e6, epochs, length_.train_iters);
    if (epochs > kManyEpochs)
      log::warn("{}: the run reads it {:.0f} times; beyond {} a repetition teaches little", path,
                epochs, kManyEpochs);
  }
  log::info(
      "step: {} sequences of {} tokens in micro-batches of {}; {:.3g} GFLOP a token forward and "
      "backward; this machine's peak {:.0f} GFLOP/s, as a square matmul measured it now",
      c.train.global_batch_size, c.data.seq_length, c.train.micro_batch_size,
      pace_.flops_per_token() / 1e9, pace_.peak_flops() / 1e9);
  if (world_.size() > 1)
    log::info("ranks: {}, zero_stage {}, {} bits", engine_->layout().str(), c.parallel.zero_stage,
              word(c.parallel.deterministic));
  if (!engine_->transport().empty()) log::info("tensors travel by {}", engine_->transport());
  print_memory();
}

// Every rank of a machine needs about as much, and each is told of the same free memory.
void Run::refuse_shortfall() const {
  const std::size_t outside = kSavingBytes + program_bytes_;
  const std::size_t others = outside + (ranks_here_ - 1) * (ledger_.total_bytes() + outside);
  const std::string what = ledger_.shortfall(available_memory() + resident_bytes(), others);
  if (comm::all_reduce_max(world_, what.empty() ? 0 : 1) == 0) return;
  print_memory();
  comm::agree(world_, [&] {
    if (!what.empty())
      fail(ExitCode::out_of_memory,
           "{}; use a smaller model or train.micro_batch_size, train.recompute: full, or more "
           "machines",
           what);
  });
}

void Run::print_memory() const {
  const char* whose = world_.size() > 1 ? " of rank 0" : "";
  const auto entries = [&](Device device) {
    for (const MemoryLedger::Entry& e : ledger_.entries())
      if (e.device == device) log::info("  {:<32}{:>12}", e.label, human_bytes(e.bytes));
  };
  if (!properties(choice_.device).reads_host_memory) {
    log::info("GPU memory{}:", whose);
    entries(choice_.device);
    log::info("  {:<32}{:>12}", "sum", human_bytes(ledger_.total_bytes(choice_.device)));
  }
  log::info("memory{}:", whose);
  entries(Device::cpu);
  log::info("  {:<32}{:>12}", "checkpoint blocks (when saving)", human_bytes(kSavingBytes));
  log::info("  {:<32}{:>12}", "program and libraries", human_bytes(program_bytes_));
  log::info("  {:<32}{:>12}", "sum",
            human_bytes(ledger_.total_bytes() + kSavingBytes + program_bytes_));
}

}  // namespace grist::train
