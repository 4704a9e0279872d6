#pragma once
// TensorBoard event files (scalars only), written without protobuf. Record: u64 length, masked
// crc32c of it, payload, masked crc32c of the payload; the payload is an Event message
// (tensorflow/core/util/event.proto).
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "appender.h"
#include "grist/record/sink.h"

namespace grist::record {

struct Scalar {
  std::string tag;
  double value = 0;
};

std::string tensorboard_version_record(double wall_time);
std::string tensorboard_scalar_record(double wall_time, std::int64_t step,
                                      std::span<const Scalar> scalars);

// One new file a start of the process; viewers merge the files of a folder by step.
class Tensorboard final : public Sink {
 public:
  explicit Tensorboard(const std::filesystem::path& folder);
  void write(const StepRecord& r) override;
  void write(const ValidationRecord& r) override;

 private:
  Appender file_;
};

}  // namespace grist::record
