// Tests of the CUDA backend need its device; there is no skipping without one.
#include <cstdio>
#include <string>

#include "cuda/fixture.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (::testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
  std::string why;
  if (!grist::test::enable_cuda(why)) {
    std::fprintf(stderr, "no CUDA device: %s\n", why.c_str());
    return 1;
  }
  return RUN_ALL_TESTS();
}
