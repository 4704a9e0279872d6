#include "grist/record/recorder.h"

#include "grist/core/log.h"
#include "grist/record/console.h"
#include "metrics_log.h"
#include "tensorboard.h"

namespace grist::record {

namespace {

class Console final : public Sink {
 public:
  explicit Console(std::int64_t train_iters) : train_iters_(train_iters) {}
  void write(const StepRecord& r) override { log::info("{}", console_line(r, train_iters_)); }
  void write(const ValidationRecord& r) override { log::info("{}", console_line(r)); }

 private:
  std::int64_t train_iters_;
};

}  // namespace

Recorder::Recorder(const RunFolder& folder, const RecorderOptions& options)
    : metrics_(std::make_unique<MetricsLog>(folder.metrics(), options.metrics_bytes)) {
  others_.push_back(std::make_unique<Console>(options.train_iters));
  if (options.tensorboard) others_.push_back(std::make_unique<Tensorboard>(folder.tensorboard()));
}

Recorder::~Recorder() = default;

void Recorder::write(const StepRecord& r) {
  metrics_->write(r);
  for (const auto& sink : others_) sink->write(r);
}

void Recorder::write(const ValidationRecord& r) {
  metrics_->write(r);
  for (const auto& sink : others_) sink->write(r);
}

std::uint64_t Recorder::sync() {
  metrics_->sync();
  return metrics_->bytes();
}

}  // namespace grist::record
