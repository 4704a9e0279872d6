#include "cuda/elementwise.h"
#include "grist/ops/dispatch.h"
#include "ops/gather_reference.h"

namespace grist::test {
namespace {

void check_sum(std::int64_t K, std::int64_t D, int variant, DType dtype) {
  const bool weighted = (variant & 1) != 0, accumulate = (variant & 2) != 0;
  const std::int64_t N = 35;
  const CudaContext ctx;
  GatherCase c = gather_case(N, K, D);
  if (dtype == DType::bf16) {
    c.rows = rounded_to_bf16(c.rows);
    c.y = rounded_to_bf16(c.y);
  }
  const OnDevice y(*ctx, c.y, {N, D}, dtype), rows(*ctx, c.rows, {N * K, D}, dtype);
  const OnDevice slots(*ctx, c.slots, {N, K}), weights(*ctx, c.weights, {N, K});
  const std::vector<double> want = gather_reference(c, weighted, accumulate);

  ops::gather_sum(*ctx, {.y = y,
                         .rows = rows,
                         .slot_row = slots,
                         .weights = weighted ? ConstTensorView(weights) : ConstTensorView(),
                         .accumulate = accumulate});

  EXPECT_TRUE(close(y.floats(), want, stored_as(dtype, tolerance(K))));
  if (dtype == DType::bf16) return;
  const CpuContext cpu;
  ops::gather_sum(
      *cpu, {.y = view(c.y, {N, D}),
             .rows = view(std::as_const(c.rows), {N * K, D}),
             .slot_row = view(std::as_const(c.slots), {N, K}),
             .weights = weighted ? ConstTensorView(view(c.weights, {N, K})) : ConstTensorView(),
             .accumulate = accumulate});
  EXPECT_EQ(y.floats(), c.y) << "bits of the CPU";
}

TEST(CudaGatherSum, AddsTheRowsOfATokensChoices) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      for (const std::int64_t K : {1, 4, 8, 11}) {
        for (const std::int64_t D : {1, 33, 192, 200}) {
          for (const int variant : {0, 1, 2, 3}) {
            SCOPED_TRACE(std::string(name_of(dtype)) + " K " + std::to_string(K) + " D " +
                         std::to_string(D) + " variant " + std::to_string(variant));
            check_sum(K, D, variant, dtype);
          }
        }
      }
    }
  });
}

TEST(CudaGatherRows, CopiesTheRowsOfAnIndex) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      const CudaContext ctx;
      for (const std::int64_t D : {1, 7, 16, 200}) {
        for (const std::int64_t R : {0, 1, 29, 1500}) {
          const std::int64_t N = 211;
          const std::vector<float> x = activations(N * D, "gather rows", dtype);
          std::vector<std::int32_t> index(static_cast<std::size_t>(R));
          for (std::size_t i = 0; i < index.size(); ++i)
            index[i] = static_cast<std::int32_t>(i * 37 % 211);
          std::vector<float> want;
          for (const std::int32_t i : index)
            want.insert(want.end(), x.begin() + i * D, x.begin() + (i + 1) * D);
          const OnDevice y(*ctx, dtype, {R, D});
          ops::gather_rows(
              *ctx,
              {.y = y, .x = OnDevice(*ctx, x, {N, D}, dtype), .index = OnDevice(*ctx, index, {R})});
          EXPECT_EQ(y.floats(), want) << R << " rows of " << D;
        }
      }
    }
  });
}

}  // namespace
}  // namespace grist::test
