#pragma once
// One training run from start to end. Members are in the order in which they are set up.
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "grist/core/context.h"
#include "grist/data/batch_loader.h"
#include "grist/data/dataset.h"
#include "grist/data/tokenizer.h"
#include "grist/nn/model.h"
#include "grist/optim/adamw.h"
#include "grist/train/trainer.h"
#include "metrics.h"
#include "run_folder.h"
#include "tensorboard.h"
#include "training_state.h"

namespace grist::train {

class Run {
 public:
  Run(LoadedConfig config, const TrainOptions& options);
  ExitCode execute();

 private:
  // setup.cpp
  void resolve_device() const;
  void resolve_vocabulary();
  void open_data();
  void build_model();
  void start_or_resume();
  void open_folder();
  void start_from_parent();
  void check_same_model(const CheckpointReader& step) const;
  bool resume();
  void warm_up();
  void print_plan() const;

  // loop.cpp
  ExitCode train();
  void step();
  const std::vector<Batch>& global_batch();
  void refuse_to_go_on(std::int64_t samples) const;
  void log_step(double loss, double grad_norm, double lr);
  bool validation_due() const;
  bool validate();
  bool evaluate(ValidationRecord& record);
  void save();
  std::optional<ExitCode> stop_requested();
  double hours() const;

  const Config& config() const { return loaded_.config; }

  LoadedConfig loaded_;
  TrainOptions options_;
  std::size_t program_bytes_ = 0;  // resident before anything was allocated
  MemoryLedger ledger_;
  ThreadPool pool_;
  Scratch scratch_;
  Context context_;
  std::vector<TextFile>
      tokenizer_texts_;  // of the start: the files may change or go during the run
  std::optional<Tokenizer> tokenizer_;
  std::optional<SampleStream> samples_;
  std::optional<BatchLoader> loader_;
  std::vector<ValidationSet> validation_;
  std::optional<nn::Model> model_;
  std::optional<Moments> moments_;
  std::optional<Optimizer> optimizer_;
  std::optional<nn::Activations> activations_;
  std::optional<RunFolder> folder_;
  std::optional<CheckpointFolder> checkpoints_;
  std::optional<MetricsLog> metrics_;
  std::optional<TensorboardWriter> tensorboard_;
  Json parent_;  // of continued pretraining: path, uuid, step; null otherwise
  Counters counters_;
  std::int64_t saved_step_ = -1;
  std::int64_t started_step_ = 0;  // step at which this process began
  bool unsaved_ = true;            // something has happened since the last save or load

  nn::StepStatistics statistics_;
  double flops_per_token_ = 0;  // forward and backward
  double peak_flops_ = 0;       // measured, all threads
  using Clock = std::chrono::steady_clock;
  const Clock::time_point born_ = Clock::now();  // max_hours counts from here
  Clock::time_point start_ = born_, logged_ = born_;
  std::int64_t logged_tokens_ = 0;
  std::int64_t logged_step_ = 0;
};

}  // namespace grist::train
