#pragma once
// What a run reports: one object a logged step in metrics.jsonl, one line on the console,
// optionally TensorBoard events. Everything but the time fields is a function of the run's
// configuration and data, bit for bit.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "grist/core/file.h"
#include "grist/core/json.h"
#include "grist/nn/statistics.h"
#include "grist/record/tensorboard.h"

namespace grist::record {

// Balance of one MoE layer over a step.
struct LayerRecord {
  double max_vio = 0;  // max load / mean load - 1 (Wang et al. 2408.15664)
  std::vector<nn::TokenMean> means;
  double dropped_fraction = 0;
  std::int64_t dead_experts = 0;  // without a token in this step
  std::vector<std::int64_t> load;
};
std::vector<LayerRecord> layer_records(const nn::StepStatistics& statistics,
                                       std::int64_t experts_per_token);

struct StepRecord {
  std::int64_t step = 0;
  std::int64_t tokens = 0;  // consumed so far
  std::int64_t samples = 0;
  double loss = 0;  // CE of this step, nats per target token
  std::vector<nn::LossTerm> terms;
  double grad_norm = 0;  // before clipping
  double lr = 0;
  std::int64_t skipped = 0;  // updates skipped so far because something was not finite
  std::vector<LayerRecord> layers;
  // Time fields.
  double seconds = 0;  // of the steps since the last record
  double tokens_per_second = 0;
  double flops_per_second = 0;
  double peak_fraction = 0;
  double eta_seconds = 0;
};

struct ValidationRecord {
  struct Set {
    std::string name;
    double loss_sum = 0;  // nats
    std::int64_t tokens = 0;
    std::int64_t all_tokens = 0;  // of the set, targets or not
    std::int64_t bytes = 0;  // of the text behind the tokens; 0: not known, or only a part was read
  };
  std::int64_t step = 0;
  std::int64_t tokens = 0;
  double seconds = 0;
  std::vector<Set> sets = {};
};

Json without_times(Json record);  // of metrics.jsonl: what two equal runs have in common

double max_vio(const StepRecord& r);           // largest over layers
double dropped_fraction(const StepRecord& r);  // mean over layers

Json to_json(const StepRecord& r);
Json to_json(const ValidationRecord& r);
std::vector<Scalar> scalars_of(const StepRecord& r);  // for TensorBoard
std::string console_line(const StepRecord& r, std::int64_t train_iters);
std::string console_line(const ValidationRecord& r);
std::string duration(double seconds);  // "2m05s"

// Appends lines; remembers its length so that a checkpoint can say where to cut on resume.
class MetricsLog {
 public:
  // Cuts the file to `keep_bytes`; what was behind moves to metrics.jsonl.tail-<n>, nothing is
  // lost.
  MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes);
  void append(const Json& record);
  void sync() { file_.sync(); }
  std::uint64_t bytes() const { return bytes_; }

 private:
  File file_;
  std::uint64_t bytes_ = 0;
};

}  // namespace grist::record
