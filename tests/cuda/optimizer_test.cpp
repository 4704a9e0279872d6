#include "grist/ops/optimizer.h"

#include <algorithm>

#include "cuda/fixture.h"

namespace grist::test {
namespace {

TEST(CudaFill, EveryElement) {
  for_each_schedule([] {
    const CudaContext ctx;
    for (const std::int64_t n : {1, 255, 256, 257, 10'000}) {
      const OnDevice x(*ctx, DType::f32, {n});
      ops::fill(*ctx, {.x = x, .value = 2.5F});
      const std::vector<float> got = x.floats();
      EXPECT_EQ(std::count(got.begin(), got.end(), 2.5F), n);
    }
  });
}

}  // namespace
}  // namespace grist::test
