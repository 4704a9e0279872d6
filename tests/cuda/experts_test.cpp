// Grouped matmuls of a MoE layer against float64 formulas: fp32 and bf16, tails and empty experts,
// widths that tiles do not divide.
#include "grist/ops/experts.h"

#include <gtest/gtest.h>

#include <cstring>

#include "cuda/experts_layer.h"

namespace grist {
namespace {

using namespace test::experts;  // NOLINT(google-build-using-namespace)

struct Case {
  Sizes sizes;
  DType dtype;
};

class CudaExperts : public ::testing::TestWithParam<Case> {
 protected:
  AsDevice portable{80};  // without the kernels of sm90/
  Layer layer = rounded(Layer(GetParam().sizes));
  DType dtype = GetParam().dtype;
};

TEST_P(CudaExperts, MatchFormulas) {
  Results first;
  test::for_each_schedule([&] {
    const test::CudaContext ctx;
    const Results got = DeviceLayer(*ctx, layer, dtype).run();
    if (first.z.empty()) {
      first = got;
      expect_close(layer, got, Judge(layer, &got), rounding(dtype));
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

TEST_P(CudaExperts, AccumulatingKeepsEmptyExpertsAndAddsToTheRest) {
  const test::CudaContext ctx;
  DeviceLayer device(*ctx, layer, dtype);
  const Results once = device.run(), twice = device.add_weight_gradients();

  const auto expect_doubled = [](const Floats& got, const Floats& single) {
    for (std::size_t i = 0; i < got.size(); ++i) {
      const float want = 2 * single[i];
      ASSERT_LE(std::abs(got[i] - want), 1e-4F + 1e-5F * std::abs(want)) << i;
    }
  };
  expect_doubled(twice.dw13, once.dw13);
  expect_doubled(twice.dw2, once.dw2);
}

// Tiles are 64 or 128 rows high. bf16 widths that are multiples of 8 go through tensor cores.
INSTANTIATE_TEST_SUITE_P(
    Shapes, CudaExperts,
    ::testing::Values(
        Case{{1, 1, 1, {1}}, DType::f32}, Case{{3, 257, 5, {2, 0, 4}}, DType::f32},
        Case{{20, 33, 37, {0, 0, 61, 0}}, DType::f32},
        Case{{40, 48, 64, {63, 64, 0, 65, 1}}, DType::f32}, Case{{9, 20, 200, {3, 8}}, DType::f32},
        Case{{30, 31, 32, {0, 0}}, DType::f32}, Case{{7, 9, 5, {3, 0, 70}}, DType::bf16},
        Case{{20, 20, 12, {5, 61}}, DType::bf16}, Case{{8, 8, 8, {1}}, DType::bf16},
        Case{{40, 48, 64, {127, 128, 0, 129, 1}}, DType::bf16},
        Case{{9, 200, 24, {3, 8, 0}}, DType::bf16}, Case{{9, 24, 192, {2, 0, 9}}, DType::bf16},
        Case{{50, 136, 72, {0, 17, 150}}, DType::bf16}, Case{{30, 40, 32, {0, 0}}, DType::bf16}),
    [](const auto& tested) {
      const Case& c = tested.param;
      return std::string(name_of(c.dtype)) + "_D" + std::to_string(c.sizes.D) + "_F" +
             std::to_string(c.sizes.F);
    });

// A row's bits are the same alone, elsewhere in the list and with other neighbours.
class CudaExpertRows : public ::testing::TestWithParam<DType> {
 protected:
  AsDevice portable{80};
};

TEST_P(CudaExpertRows, DoNotDependOnTheirPlace) {
  const test::CudaContext ctx;
  const Layer many = rounded(Layer(Sizes{40, 48, 40, {5, 70, 0, 2}}));
  Layer one = many;  // row 70 of the list, expert 1's row 65, as the only row of its expert
  constexpr std::int64_t kRow = 70;
  one.offsets = {0, 0, 1, 1, 1};
  one.R = 3;
  one.row_token = {many.row_token[kRow], 0, 0};
  one.row_weight = {many.row_weight[kRow], 0, 0};

  const Results all = DeviceLayer(*ctx, many, GetParam()).run();
  const Results alone = DeviceLayer(*ctx, one, GetParam()).run();

  const auto expect_row = [&](const Floats& a, const Floats& b, std::int64_t width) {
    EXPECT_EQ(0, std::memcmp(&a[at(kRow * width)], b.data(), at(width) * sizeof(float)));
  };
  expect_row(all.z, alone.z, 2 * many.F);
  expect_row(all.a, alone.a, many.F);
  expect_row(all.y, alone.y, many.D);
  expect_row(all.dz, alone.dz, 2 * many.F);
  expect_row(all.weighted_a, alone.weighted_a, many.F);
  expect_row(all.drow_weight, alone.drow_weight, 1);
  expect_row(all.dx, alone.dx, many.D);
}

TEST_P(CudaExpertRows, WithoutAnIndexAreTheirOwnTokens) {
  const test::CudaContext ctx;
  Layer l = rounded(Layer(Sizes{78, 24, 16, {11, 0, 65}}));
  l.R = l.N;  // rows 76 and 77 belong to no expert
  for (std::int64_t r = 0; r < l.R; ++r) l.row_token[at(r)] = static_cast<std::int32_t>(r);
  l.row_token.resize(at(l.R));
  l.row_weight.resize(at(l.R));

  const Results indexed = DeviceLayer(*ctx, l, GetParam()).run();
  const Results dense = DeviceLayer(*ctx, l, GetParam()).run(false);

  EXPECT_EQ(dense.z, indexed.z);
  EXPECT_EQ(dense.dz, indexed.dz);
  EXPECT_EQ(dense.dw13, indexed.dw13);
  EXPECT_EQ(dense.dw2, indexed.dw2);
}

INSTANTIATE_TEST_SUITE_P(DTypes, CudaExpertRows, ::testing::Values(DType::f32, DType::bf16),
                         [](const auto& tested) { return name_of(tested.param); });

}  // namespace
}  // namespace grist
