// What the Hopper attention takes and what it refuses. Its results: attention_test.cpp.
#include <gtest/gtest.h>

#include "cuda/fixture.h"
#include "kernels/cuda/sm90/attention.h"

namespace grist {
namespace {

bool takes(int capability, DType dtype, std::int64_t Dh, std::int64_t rows = 3, int shifted = 0) {
  const test::AsDevice device(capability);
  const test::CudaContext ctx;
  const test::OnDevice x(*ctx, dtype, {rows + 1, 2, Dh});
  const ConstTensorView view(static_cast<const std::byte*>(x.view().data) + shifted, dtype,
                             {rows, 2, Dh});
  return cuda::attention::hopper::takes(Dh, x.view(), view);
}

TEST(Sm90Attention, TakesHeadsOf64And128InBf16) {
  EXPECT_TRUE(takes(90, DType::bf16, 64));
  EXPECT_TRUE(takes(90, DType::bf16, 128));
  EXPECT_FALSE(takes(90, DType::bf16, 96));
  EXPECT_FALSE(takes(90, DType::bf16, 256));
  EXPECT_FALSE(takes(90, DType::f32, 64));
  EXPECT_FALSE(takes(90, DType::bf16, 64, 0)) << "nothing to make a tensor map of";
  EXPECT_FALSE(takes(90, DType::bf16, 64, 3, 8)) << "rows at an odd address";
  EXPECT_FALSE(takes(80, DType::bf16, 64));
  EXPECT_FALSE(takes(100, DType::bf16, 64)) << "wgmma is Hopper's alone";
}

}  // namespace
}  // namespace grist
