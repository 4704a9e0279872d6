// Tests of the CUDA backend need its device: without one the program says so and ends with 69.
#include <cstdio>
#include <string>

#include "cuda/fixture.h"
#include "grist/core/error.h"
#include "kernels/backends.h"

bool grist::test::enable_cuda(std::string& why) {
  static std::string reason;
  static const bool enabled = cuda::enable(0, reason);
  why = reason;
  return enabled;
}

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (::testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
  std::string why;
  if (!grist::test::enable_cuda(why)) {
    std::fprintf(stderr, "no CUDA device: %s\n", why.c_str());
    return static_cast<int>(grist::ExitCode::device_unavailable);
  }
  std::printf("device: %s\n", grist::runtime(grist::Device::cuda).describe().c_str());
  return RUN_ALL_TESTS();
}
