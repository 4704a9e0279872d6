#include "grist/ops/rope.h"

#include <cmath>

#include "cuda/elementwise.h"
#include "ops/rope_reference.h"
#include "support/gradient.h"

namespace grist::test {
namespace {

const RopeShape kCases[] = {{0, 2, 8},   {1, 1, 2},   {5, 3, 6},   {67, 2, 34},
                            {33, 5, 64}, {3, 1, 128}, {9, 16, 32}, {2, 9, 200}};

TEST(CudaRope, TheTableHasTheCpusBits) {
  const CudaContext ctx;
  const CpuContext cpu;
  const OnDevice table(*ctx, DType::f32, {300, 6});
  std::vector<float> want(1800);
  ops::rope_table(*ctx, {.table = table, .theta = 500000.0});
  ops::rope_table(*cpu, {.table = view(want, {300, 6}), .theta = 500000.0});
  EXPECT_EQ(table.floats(), want);
}

TEST(CudaRope, RotatesEachPairAndBack) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      for (const RopeShape& c : kCases) {
        SCOPED_TRACE((label({c.N, c.H, c.Dh}, dtype)));
        const std::int64_t P = 41;
        const CudaContext ctx;
        const OnDevice table(*ctx, DType::f32, {P, c.Dh});
        ops::rope_table(*ctx, {.table = table, .theta = 10000.0});
        const auto positions = some_positions(c.N, P);
        const auto before = activations(c.N * c.H * c.Dh, "x", dtype);
        const OnDevice x(*ctx, before, {c.N, c.H, c.Dh}, dtype), at(*ctx, positions, {c.N});
        ops::Rope rope{.x = x, .positions = at, .table = table};

        ops::rope(*ctx, rope);
        EXPECT_TRUE(close(x.floats(), rope_reference(before, c, positions, 10000.0),
                          stored_as(dtype, {1e-6, 1e-6})));

        rope.inverse = true;
        ops::rope(*ctx, rope);  // twice rounded, of numbers up to about 4
        const Tolerance back =
            dtype == DType::f32 ? Tolerance{1e-6, 1e-6} : Tolerance{0x1p-8, 0x1p-6};
        EXPECT_TRUE(close(x.floats(), widen(before), back));
      }
    }
  });
}

TEST(CudaRope, APositionOutsideTheTableGivesNan) {
  const CudaContext ctx;
  const OnDevice table(*ctx, DType::f32, {4, 8});
  ops::rope_table(*ctx, {.table = table, .theta = 10000.0});
  const OnDevice x(*ctx, std::vector<float>(24, 1.0F), {3, 1, 8});
  const OnDevice positions(*ctx, std::vector<std::int32_t>{-1, 3, 4}, {3});
  ops::rope(*ctx, {.x = x, .positions = positions, .table = table});
  const auto got = x.floats();
  for (std::size_t i = 0; i < 24; ++i) EXPECT_EQ(std::isnan(got[i]), i / 8 != 1) << i;
}

}  // namespace
}  // namespace grist::test
