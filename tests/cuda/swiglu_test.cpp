#include "grist/ops/swiglu.h"

#include <cmath>
#include <limits>

#include "cuda/elementwise.h"
#include "ops/swiglu_reference.h"
#include "support/gradient.h"

namespace grist::test {
namespace {

struct Case {
  std::int64_t N, F;
};
const Case kCases[] = {{0, 4}, {1, 1}, {3, 257}, {70, 33}, {2, 2048}, {65, 192}, {9, 200}, {3, 4}};

TEST(CudaSwiglu, MatchesFormula) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      for (const Case& c : kCases) {
        SCOPED_TRACE((label({c.N, c.F}, dtype)));
        const CudaContext ctx;
        const auto z = activations(c.N * 2 * c.F, "z", dtype, 3.0F);
        const auto da = activations(c.N * c.F, "da", dtype);
        const OnDevice on_z(*ctx, z, {c.N, 2 * c.F}, dtype), on_da(*ctx, da, {c.N, c.F}, dtype);
        const OnDevice a(*ctx, dtype, {c.N, c.F}), dz(*ctx, dtype, {c.N, 2 * c.F});

        ops::swiglu_forward(*ctx, {.a = a, .z = on_z});
        ops::swiglu_backward(*ctx, {.dz = dz, .da = on_da, .z = on_z});

        const auto N = static_cast<std::size_t>(c.N), F = static_cast<std::size_t>(c.F);
        EXPECT_TRUE(
            close(a.floats(), swiglu_reference(widen(z), N, F), stored_as(dtype, {1e-6, 1e-7})));
        EXPECT_TRUE(close(dz.floats(), swiglu_gradient(widen(z), widen(da), N, F),
                          stored_as(dtype, {2e-6, 1e-6})));
        ops::swiglu_backward(*ctx, {.dz = on_z, .da = on_da, .z = on_z});
        EXPECT_EQ(on_z.floats(), dz.floats());
      }
    }
  });
}

TEST(CudaSwiglu, ExtremesStayFiniteAndNanIsNotHidden) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType dtype : kActivationTypes) {
    const CudaContext ctx;
    const OnDevice z(*ctx, {-1e4F, 1e4F, -88.5F, 0.0F, nan, 2.0F, 2.0F, 2.0F, 2.0F, 2.0F}, {1, 10},
                     dtype);
    const OnDevice ones(*ctx, std::vector<float>(5, 1.0F), {1, 5}, dtype);
    const OnDevice a(*ctx, dtype, {1, 5}), dz(*ctx, dtype, {1, 10});
    ops::swiglu_forward(*ctx, {.a = a, .z = z});
    ops::swiglu_backward(*ctx, {.dz = dz, .da = ones, .z = z});
    auto got_a = a.floats(), got_dz = dz.floats();
    EXPECT_TRUE(std::isnan(got_a[4]) && std::isnan(got_dz[4]) && std::isnan(got_dz[9]));
    got_a[4] = got_dz[4] = got_dz[9] = 0.0F;
    const Tolerance t = stored_as(dtype, {1e-6, 1e-30});
    EXPECT_TRUE(close(got_a, {0, 2e4, 0, 0, 0}, t));
    EXPECT_TRUE(close(got_dz, {0, 2, 0, 1, 0, 0, 1e4, 0, 0, 0}, t));
  }
}

}  // namespace
}  // namespace grist::test
