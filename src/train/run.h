#pragma once
// One training run from start to end. Members are in the order in which they are set up.
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine.h"
#include "grist/ckpt/background_save.h"
#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "grist/core/compute_device.h"
#include "grist/core/context.h"
#include "grist/data/batch_loader.h"
#include "grist/data/dataset.h"
#include "grist/data/tokenizer.h"
#include "grist/nn/choose_device.h"
#include "grist/record/pace.h"
#include "grist/record/recorder.h"
#include "grist/train/training.h"
#include "grist/watch/straggler.h"
#include "job.h"
#include "length.h"
#include "training_state.h"
#include "vocabulary.h"

namespace grist::train {

class Run {
 public:
  Run(LoadedConfig config, const TrainOptions& options, Job& job);
  ExitCode execute();

 private:
  // setup.cpp
  void say_device() const;
  void open_data();
  void check_same_data() const;
  void warm_up();
  void print_plan() const;
  void print_memory() const;
  void refuse_shortfall() const;

  // start.cpp
  void start_or_resume();
  void plan_length();
  bool resume();
  void refuse_missing_steps() const;
  void start_from_parent();
  void check_same_model(const CheckpointReader& step) const;
  std::string other_layout(const CheckpointReader& step) const;
  void open_checkpoints(const std::string& uuid);
  void open_folder();

  // loop.cpp
  ExitCode train();
  void step();
  const std::vector<Batch>& own_batches();
  void watch_stragglers(std::span<const double> compute_seconds);
  void refuse_to_go_on(std::int64_t samples) const;
  void log_step(const StepOutcome& outcome);
  template <class Record> void tell(const Record& r);
  bool validation_due() const;
  bool validate();
  std::optional<std::vector<record::ValidationSum>> evaluate();
  void save();
  void poll_save();
  void finish_save(bool must);
  int agreed_signal() const;
  std::optional<ExitCode> stop_requested();
  double hours() const;
  std::int64_t last_step() const;

  const Config& config() const { return loaded_.config; }
  bool leader() const { return world_.rank() == 0; }
  const Context& context() const { return device_.context(); }
  // What touches files that all ranks share is done by rank 0; its error is everybody's.
  void leader_does(const std::function<void()>& work);

  LoadedConfig loaded_;
  TrainOptions options_;
  comm::Communicator& world_;
  std::size_t program_bytes_ = 0;  // resident before anything was allocated
  MemoryLedger ledger_;
  std::size_t ranks_here_ = 1;  // on this machine
  nn::DeviceChoice choice_;
  ComputeDevice device_;
  std::vector<TextFile>
      tokenizer_texts_;  // of the start: the files may change or go during the run
  std::optional<Tokenizer> tokenizer_;
  std::optional<SampleStream> samples_;
  std::optional<BatchLoader> loader_;
  std::vector<ValidationSet> validation_;
  std::optional<Engine> engine_;
  std::optional<record::RunFolder> folder_;
  std::optional<BackgroundSave> saver_;
  bool saving_ = false;                              // a save is being written
  std::optional<watch::StragglerWatch> stragglers_;  // several ranks only
  std::optional<record::Recorder> recorder_;         // rank 0 only
  record::Pace pace_{0};
  Json parent_;  // of continued pretraining: path, uuid, step; null otherwise
  Counters counters_;
  Length length_;
  std::vector<std::int64_t> damaged_steps_;  // found so when this process loaded
  std::int64_t saved_step_ = -1;
  std::int64_t started_step_ = 0;  // step at which this process began
  bool unsaved_ = true;            // something has happened since the last save or load

  using Clock = record::Pace::Clock;
  const Clock::time_point born_ = Clock::now();  // max_hours counts from here
  Clock::time_point start_ = born_;
};

}  // namespace grist::train
