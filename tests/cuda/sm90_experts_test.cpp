// The Hopper matmuls against float64 formulas: tiles of 128 rows and 128 or 256 columns, stages of
// 64; tails of all of them, empty experts, widths that nothing divides.
#include <gtest/gtest.h>

#include "cuda/experts_layer.h"

namespace grist {
namespace {

using namespace test::experts;  // NOLINT(google-build-using-namespace)

class Sm90Experts : public ::testing::TestWithParam<Sizes> {
 protected:
  AsDevice hopper{90};
  Layer layer = rounded(Layer(GetParam()));
};

TEST_P(Sm90Experts, MatchFormulas) {
  Results first;
  test::for_each_schedule([&] {
    const test::CudaContext ctx;
    const Results got = DeviceLayer(*ctx, layer, DType::bf16).run();
    if (first.z.empty()) {
      first = got;
      expect_close(layer, got, Judge(layer, &got), rounding(DType::bf16));
      return;
    }
    EXPECT_EQ(got.z, first.z);
    EXPECT_EQ(got.a, first.a);
    EXPECT_EQ(got.y, first.y);
    EXPECT_EQ(got.dz, first.dz);
    EXPECT_EQ(got.weighted_a, first.weighted_a);
    EXPECT_EQ(got.drow_weight, first.drow_weight);
    EXPECT_EQ(got.dx, first.dx);
    EXPECT_EQ(got.dw13, first.dw13);
    EXPECT_EQ(got.dw2, first.dw2);
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Sm90Experts,
                         ::testing::Values(Sizes{8, 8, 8, {1}}, Sizes{30, 40, 32, {0, 0}},
                                           Sizes{40, 64, 64, {127, 0, 128, 129, 1}},
                                           Sizes{9, 200, 192, {3, 8, 0}},
                                           Sizes{50, 136, 72, {0, 17, 150}}),
                         [](const auto& test) {
                           return "D" + std::to_string(test.param.D) + "_F" +
                                  std::to_string(test.param.F);
                         });

}  // namespace
}  // namespace grist
