// Event files byte by byte, against records that TensorBoard's own protocol buffers decode.
#include "tensorboard.h"

#include <gtest/gtest.h>

namespace grist::record {
namespace {

std::string hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    out += kDigits[static_cast<unsigned char>(c) >> 4];
    out += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return out;
}

TEST(Tensorboard, TheFirstRecordNamesTheVersion) {
  EXPECT_EQ(hex(tensorboard_version_record(1.0)),
            "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a");
}

TEST(Tensorboard, AScalarIsASummaryOfItsStep) {
  const Scalar scalar[] = {{"train/loss", 3.5}};
  EXPECT_EQ(
      hex(tensorboard_scalar_record(2.0, 1, scalar)),
      "200000000000000029eda95009000000000000004010012a130a110a0a747261696e2f6c6f73731500006040"
      "a0e03e9e");
}

}  // namespace
}  // namespace grist::record
