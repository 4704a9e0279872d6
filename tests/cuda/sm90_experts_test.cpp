// What the Hopper matmuls take and what they refuse. Their results: experts_test.cpp and
// linear_test.cpp.
#include <gtest/gtest.h>

#include "cuda/fixture.h"
#include "kernels/cuda/sm90/grouped_matmul.h"

namespace grist {
namespace {

using test::normals;
using test::OnDevice;
using Floats = std::vector<float>;
using Ints = std::vector<std::int32_t>;

constexpr std::int64_t kRows = 3;

// y = a W^T for one expert; whether the Hopper kernel did it.
bool down_forward(int capability, DType dtype, std::int64_t D, std::int64_t F,
                  std::int64_t shifted = 0) {
  const test::AsDevice device(capability);
  const test::CudaContext ctx;
  const OnDevice y(*ctx, dtype, {kRows, D}), w(*ctx, normals(D * F, "w"), {1, D, F}, dtype);
  const OnDevice a(*ctx, normals(kRows * F + shifted, "a"), {kRows * F + shifted}, dtype);
  const OnDevice offsets(*ctx, Ints{0, kRows}, {2});
  const auto elements = static_cast<std::size_t>(shifted) * size_of(dtype);
  const ConstTensorView rows(static_cast<const std::byte*>(a.view().data) + elements, dtype,
                             {kRows, F});
  const ops::WeightView weight = {static_cast<std::byte*>(w.view().data), Device::cuda, dtype,
                                  w.view().shape};
  return cuda::sm90::expert_down_forward(
      *ctx, {.y = y, .a = rows, .expert_offsets = offsets, .w = weight});
}

TEST(Sm90Matmuls, TakeWhatTheTmaCanRead) {
  EXPECT_TRUE(down_forward(90, DType::bf16, 16, 200));
  EXPECT_TRUE(down_forward(90, DType::bf16, 8, 16, 8));
  EXPECT_FALSE(down_forward(90, DType::f32, 16, 8));
  EXPECT_FALSE(down_forward(90, DType::bf16, 12, 8));
  EXPECT_FALSE(down_forward(90, DType::bf16, 8, 20));
  EXPECT_FALSE(down_forward(90, DType::bf16, 8, 16, 4)) << "rows at an odd address";
  EXPECT_FALSE(down_forward(80, DType::bf16, 16, 8));
  EXPECT_FALSE(down_forward(100, DType::bf16, 16, 8)) << "wgmma is Hopper's alone";
}

// Both operands of a weight gradient by an index; the operations of a layer have one at most.
TEST(Sm90Matmuls, WeightGradientOfRowsChosenTwice) {
  constexpr std::int64_t kTokens = 9, kHeight = 136, kWidth = 264, R = 70;
  const Ints offsets = {0, 1, 1, 67};
  const auto E = static_cast<std::int64_t>(offsets.size()) - 1;
  Ints first, second;
  for (int r = 0; r < R; ++r) {
    first.push_back(r * 5 % 9);
    second.push_back(r * 7 % 9);
  }
  const Floats dy = test::rounded_to_bf16(normals(kTokens * kHeight, "dy"));
  const Floats x = test::rounded_to_bf16(normals(kTokens * kWidth, "x"));
  std::vector<double> want(static_cast<std::size_t>(E * kHeight * kWidth));
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    for (auto r = static_cast<std::size_t>(offsets[e]);
         r < static_cast<std::size_t>(offsets[e + 1]); ++r) {
      for (std::size_t i = 0; i < kHeight; ++i) {
        for (std::size_t j = 0; j < kWidth; ++j)
          want[(e * kHeight + i) * kWidth + j] +=
              double{dy[static_cast<std::size_t>(first[r]) * kHeight + i]} *
              double{x[static_cast<std::size_t>(second[r]) * kWidth + j]};
      }
    }
  }
  test::for_each_schedule([&] {
    const test::AsDevice hopper(90);
    const test::CudaContext ctx;
    const OnDevice dw(*ctx, DType::f32, {E, kHeight, kWidth});
    EXPECT_TRUE(cuda::sm90::expert_weight_gradient(
        *ctx, {.dw = dw,
               .dy = OnDevice(*ctx, dy, {kTokens, kHeight}, DType::bf16),
               .dy_token = OnDevice(*ctx, first, {R}),
               .x = OnDevice(*ctx, x, {kTokens, kWidth}, DType::bf16),
               .x_token = OnDevice(*ctx, second, {R}),
               .expert_offsets = OnDevice(*ctx, offsets, {E + 1}),
               .accumulate = false}));
    EXPECT_TRUE(test::close(dw.floats(), want, test::tolerance(67)));
  });
}

// More experts than the block that lists their rows has threads; few have rows.
TEST(Sm90Matmuls, ManyExperts) {
  constexpr std::int64_t E = 600, D = 8, F = 16;
  Ints offsets = {0};
  for (int e = 0; e < E; ++e) offsets.push_back(offsets.back() + (e % 97 == 5 ? 1 + e % 2 : 0));
  const std::int64_t R = offsets.back();
  const Floats a = test::rounded_to_bf16(normals(R * F, "a"));
  const Floats w = test::rounded_to_bf16(normals(E * D * F, "w"));
  std::vector<double> want(static_cast<std::size_t>(R * D));
  for (std::size_t e = 0; e < E; ++e) {
    for (auto r = static_cast<std::size_t>(offsets[e]);
         r < static_cast<std::size_t>(offsets[e + 1]); ++r) {
      for (std::size_t i = 0; i < D * F; ++i)
        want[r * D + i / F] += double{a[r * F + i % F]} * double{w[e * D * F + i]};
    }
  }
  test::Tolerance stored = test::tolerance(F);
  stored.relative += 1.0 / 256;  // rounded to bf16
  test::for_each_schedule([&] {
    const test::AsDevice hopper(90);
    const test::CudaContext ctx;
    const OnDevice y(*ctx, DType::bf16, {R, D}), weights(*ctx, w, {E, D, F}, DType::bf16);
    EXPECT_TRUE(cuda::sm90::expert_down_forward(
        *ctx, {.y = y,
               .a = OnDevice(*ctx, a, {R, F}, DType::bf16),
               .expert_offsets = OnDevice(*ctx, offsets, {E + 1}),
               .w = {static_cast<std::byte*>(weights.view().data), Device::cuda, DType::bf16,
                     weights.view().shape}}));
    EXPECT_TRUE(test::close(y.floats(), want, stored));
  });
}

}  // namespace
}  // namespace grist
