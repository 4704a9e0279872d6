#pragma once
// TensorBoard event files (scalars only), written without protobuf. Record: u64 length, masked
// crc32c of it, payload, masked crc32c of the payload; the payload is an Event message
// (tensorflow/core/util/event.proto).
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "grist/core/file.h"

namespace grist::record {

struct Scalar {
  std::string tag;
  double value = 0;
};

std::string tensorboard_version_record(double wall_time);
std::string tensorboard_scalar_record(double wall_time, std::int64_t step,
                                      std::span<const Scalar> scalars);

// One new file a start of the process; viewers merge the files of a folder by step.
class TensorboardWriter {
 public:
  explicit TensorboardWriter(const std::filesystem::path& folder);
  void write(std::int64_t step, std::span<const Scalar> scalars);

 private:
  File file_;
};

}  // namespace grist::record
