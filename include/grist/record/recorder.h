#pragma once
// All that hear of a run's records: metrics.jsonl, the console, TensorBoard. On a full or failing
// disk the run goes on; src/record/appender.h has how.
#include <memory>
#include <vector>

#include "grist/record/run_folder.h"
#include "grist/record/sink.h"

namespace grist::record {

class MetricsLog;

struct RecorderOptions {
  std::uint64_t metrics_bytes = 0;  // length of metrics.jsonl at the checkpoint; cut there
  std::int64_t train_iters = 0;     // for the console
  bool tensorboard = false;
};

class Recorder {
 public:
  Recorder(const RunFolder& folder, const RecorderOptions& options);
  ~Recorder();
  void write(const StepRecord& r);
  void write(const ValidationRecord& r);
  // metrics.jsonl is on the disk, as far as there is room; the length that it has then, or will
  // have.
  std::uint64_t sync();

 private:
  std::unique_ptr<MetricsLog> metrics_;
  std::vector<std::unique_ptr<Sink>> others_;
};

}  // namespace grist::record
