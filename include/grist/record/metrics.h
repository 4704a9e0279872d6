#pragma once
// What a run reports of its steps and validations, as records: written to metrics.jsonl, one JSON
// object a line, and read back from it (docs/formats/metrics.md). Everything but the time fields is
// a function of the run's configuration and data, bit for bit.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "grist/core/json.h"
#include "grist/nn/statistics.h"

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
  double eta_seconds = 0;  // not in the file
};
double max_vio(const StepRecord& r);           // largest over layers
double dropped_fraction(const StepRecord& r);  // mean over layers

struct ValidationRecord {
  struct Set {
    std::string name;
    double loss = 0;  // nats a target token
    std::int64_t tokens = 0;
    std::int64_t bytes = 0;  // of the text behind the tokens; 0: not known, or only a part was read
    std::optional<double> bits_per_byte;  // not in the file
  };
  std::int64_t step = 0;
  std::int64_t tokens = 0;  // consumed so far
  double loss = 0;          // over all sets, as the next two
  std::int64_t target_tokens = 0;
  std::optional<double> bits_per_byte;
  std::vector<Set> sets;
  double seconds = 0;
};

// What one set has given.
struct ValidationSum {
  std::string name;
  double loss_sum = 0;  // nats
  std::int64_t tokens = 0;
  std::int64_t all_tokens = 0;  // of the set, targets or not
  std::int64_t bytes = 0;       // as above
};
// Without step, tokens and seconds.
ValidationRecord validation_record(const std::vector<ValidationSum>& sums);

Json to_json(const StepRecord& r);
Json to_json(const ValidationRecord& r);
Json without_times(Json record);  // what two equal runs have in common

using Record = std::variant<StepRecord, ValidationRecord>;
// Reads what to_json() has made, also of versions with fewer or more fields. A number that was not
// finite is NaN. Error{bad_data} for anything else.
Record record_from_json(const Json& line);
// The records of a metrics.jsonl, in its order. A last line without an end, which a run that was
// killed leaves behind, is left out.
std::vector<Record> read_metrics(const std::filesystem::path& path);

}  // namespace grist::record
