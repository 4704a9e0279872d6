#include "grist/ops/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fixture.h"
#include "kernels/cuda/cublas.h"
#include "ops/cross_entropy_reference.h"
#include "support/gradient.h"

namespace grist {
namespace {

using test::close;
using test::CudaContext;
using test::for_each_schedule;
using test::normals;
using test::OnDevice;
using test::tolerance;
using test::widen;
using Case = test::CrossEntropyCase;
using Doubles = std::vector<double>;
using Floats = std::vector<float>;

constexpr float kGradScale = 0.25F;

struct Inputs {
  explicit Inputs(const Case& c_in, DType dtype_in = DType::f32, float size = 0.3F)
      : c(c_in), dtype(dtype_in), targets(test::some_targets(c)) {
    x = normals(c.N * c.D, "x");
    w = normals(c.V * c.D, "w", size);
    dw = normals(c.V * c.D, "dw before");
    if (dtype != DType::bf16) return;
    x = test::rounded_to_bf16(x);
    w = test::rounded_to_bf16(w);
  }
  test::CrossEntropyJudge judge() const {
    return {c,
            widen(x),
            widen(w),
            targets,
            static_cast<double>(kGradScale),
            static_cast<double>(z_coeff)};
  }

  Case c;
  DType dtype;
  std::vector<std::int32_t> targets;
  Floats x, w, dw;
  float z_coeff = 0.0F;
  bool accumulate = true;
};

struct Results {
  Floats losses, z, dx, dw;
};

Results run(const Inputs& in, bool gradients = true) {
  const CudaContext ctx;
  const Case& c = in.c;
  const OnDevice x(*ctx, in.x, {c.N, c.D}, in.dtype), w(*ctx, in.w, {c.V, c.D}, in.dtype);
  const OnDevice targets(*ctx, in.targets, {c.N}), dw(*ctx, in.dw, {c.V, c.D});
  const OnDevice losses(*ctx, DType::f32, {c.N}), z(*ctx, DType::f32, {c.N});
  const OnDevice dx(*ctx, in.dtype, {c.N, c.D});
  const OnDevice grad_scale(*ctx, Floats{kGradScale}, {1});
  const ops::WeightView weight{.data = static_cast<std::byte*>(w.view().data),
                               .device = Device::cuda,
                               .dtype = in.dtype,
                               .shape = {c.V, c.D}};
  ops::linear_cross_entropy(*ctx, {.losses = losses,
                                   .z = in.z_coeff != 0 ? z.view() : TensorView{},
                                   .dx = gradients ? dx.view() : TensorView{},
                                   .dw = gradients ? dw.view() : TensorView{},
                                   .x = x,
                                   .w = weight,
                                   .targets = targets,
                                   .grad_scale = gradients ? grad_scale.view() : TensorView{},
                                   .z_coeff = in.z_coeff,
                                   .accumulate = in.accumulate});
  return {losses.floats(), z.floats(), dx.floats(), dw.floats()};
}

// In bf16, dlogits are rounded, and dx is.
void expect_right(const Inputs& in, const test::CrossEntropyJudge& judge, const Results& got) {
  Doubles dw = judge.dw;
  for (std::size_t i = 0; i < dw.size(); ++i) dw[i] += static_cast<double>(in.dw[i]);
  EXPECT_TRUE(close(got.losses, judge.losses, {1e-5, 1e-5}));
  if (in.dtype == DType::bf16) {
    EXPECT_TRUE(test::close_to_sums(got.dx, judge.dx, judge.dx_size, 2));
    EXPECT_TRUE(test::close_to_sums(got.dw, dw, judge.dw_size, 1));
  } else {
    EXPECT_TRUE(close(got.dx, judge.dx, tolerance(in.c.D)));
    EXPECT_TRUE(close(got.dw, dw, tolerance(in.c.N)));
  }
}

class CudaCrossEntropy : public ::testing::TestWithParam<Case> {};

TEST_P(CudaCrossEntropy, MatchesFormula) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Inputs in(GetParam(), dtype);
    const test::CrossEntropyJudge judge = in.judge();
    for_each_schedule([&] { expect_right(in, judge, run(in)); });
  }
}

TEST_P(CudaCrossEntropy, AddsTheSquaredLogSumToTheGradients) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Inputs in(GetParam(), dtype);
    in.z_coeff = 0.05F;
    const test::CrossEntropyJudge judge = in.judge();

    const Results got = run(in);

    expect_right(in, judge, got);
    EXPECT_TRUE(close(got.z, judge.z, {1e-5, 1e-5}));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudaCrossEntropy,
                         ::testing::Values(Case{1, 1, 1}, Case{1, 8, 2}, Case{7, 16, 40},
                                           Case{33, 24, 203},   // rows that are not aligned
                                           Case{4, 16, 2050},   // and more than one round
                                           Case{3, 8, 4104}));  // aligned, several rounds

TEST(CudaCrossEntropyModes, SeveralChunks) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Inputs in({2051, 8, 12}, dtype);
    expect_right(in, in.judge(), run(in));
  }
}

TEST(CudaCrossEntropyModes, EveryMatmul) {
  const Inputs in({33, 24, 72}, DType::bf16);
  for (const cuda::DenseMatmul matmul : {cuda::DenseMatmul::own, cuda::DenseMatmul::automatic}) {
    cuda::set_dense_matmul(matmul);
    expect_right(in, in.judge(), run(in));
  }
}

TEST(CudaCrossEntropyModes, ForwardAloneAndOverwriting) {
  Inputs in({30, 8, 37});
  in.dw.assign(in.dw.size(), 0.0F);
  const Results both = run(in), forward = run(in, false);
  EXPECT_EQ(forward.losses, both.losses);
  EXPECT_EQ(forward.dw, in.dw);
  in.dw.assign(in.dw.size(), std::numeric_limits<float>::quiet_NaN());
  in.accumulate = false;
  const Results overwritten = run(in);
  EXPECT_EQ(overwritten.dw, both.dw);
  EXPECT_EQ(overwritten.dx, both.dx);

  Inputs none({0, 4, 6});
  EXPECT_EQ(run(none).dw, none.dw);
  none.accumulate = false;
  EXPECT_EQ(run(none).dw, Floats(24, 0.0F));
}

TEST(CudaCrossEntropyExtremes, MaskedRowsAddNothing) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Inputs in({6, 8, 11}, dtype);
    in.targets.assign(6, -1);
    const Results got = run(in);
    EXPECT_EQ(got.losses, Floats(6, 0.0F));
    EXPECT_EQ(got.dx, Floats(48, 0.0F));
    EXPECT_EQ(got.dw, in.dw);
  }
}

TEST(CudaCrossEntropyExtremes, LargeLogitsDoNotOverflow) {
  const Inputs in({20, 8, 52}, DType::f32, 3000.0F);  // logits of the order of 1e4
  const Results got = run(in);
  EXPECT_TRUE(close(got.losses, in.judge().losses, {1e-5, 0.05}));
  for (const Floats* x : {&got.dx, &got.dw})
    for (const float value : *x) ASSERT_TRUE(std::isfinite(value));
}

TEST(CudaCrossEntropyExtremes, NanAndWrongTargetsAreNotHidden) {
  Inputs in({4, 4, 8});
  in.x[4] = std::numeric_limits<float>::quiet_NaN();
  in.targets[3] = 8;
  const Results got = run(in);
  EXPECT_TRUE(std::isfinite(got.losses[0]));
  EXPECT_TRUE(std::isnan(got.losses[1]));
  EXPECT_TRUE(std::isfinite(got.losses[2]));
  EXPECT_TRUE(std::isnan(got.losses[3]));
}

}  // namespace
}  // namespace grist
