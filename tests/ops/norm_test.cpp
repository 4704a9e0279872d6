#include "grist/ops/norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "grist/core/error.h"
#include "ops/norm_reference.h"
#include "support/compare.h"
#include "support/gradient.h"

namespace grist {
namespace {

using test::close;
using test::CpuContext;
using test::dot;
using test::normals;
using test::Tolerance;
using test::tolerance;
using test::view;
using test::widen;
using Doubles = std::vector<double>;

struct Case {
  std::int64_t N, D;
  bool residual;
};

struct Data {
  explicit Data(const Case& c)
      : shape{c.N, c.D},
        x(normals(c.N * c.D, "x")),
        residual(normals(c.N * c.D, "residual")),
        w(normals(c.D, "w")),
        y(x.size()),
        h(x.size()),
        rstd(static_cast<std::size_t>(c.N)) {}
  void forward(const Context& ctx, bool with_residual) {
    ops::rms_norm_forward(
        ctx, {.y = view(y, shape),
              .h = with_residual ? view(h, shape) : TensorView{},
              .rstd = view(rstd, {shape[0]}),
              .x = view(std::as_const(x), shape),
              .residual = with_residual ? view(std::as_const(residual), shape) : ConstTensorView{},
              .w = view(std::as_const(w), {shape[1]}),
              .eps = 1e-5F});
    if (!with_residual) h = x;
  }
  Shape shape;
  std::vector<float> x, residual, w, y, h, rstd;
};

class RmsNorm : public ::testing::TestWithParam<Case> {};

TEST_P(RmsNorm, ForwardMatchesFormula) {
  const Case c = GetParam();
  const CpuContext ctx;
  Data data(c);

  data.forward(*ctx, c.residual);

  Doubles h = widen(data.x);
  if (c.residual)
    for (std::size_t i = 0; i < h.size(); ++i) h[i] += static_cast<double>(data.residual[i]);
  const auto want = test::rms_norm_reference(h, widen(data.w), 1e-5);
  EXPECT_TRUE(close(data.h, h, {1e-6, 1e-6}));
  EXPECT_TRUE(close(data.y, want.y, {2e-6, 1e-6}));
  EXPECT_TRUE(close(data.rstd, want.rstd, {2e-6, 0}));
}

TEST_P(RmsNorm, BackwardMatchesFormula) {
  const Case c = GetParam();
  const CpuContext ctx;
  Data data(c);
  data.forward(*ctx, c.residual);
  const auto dy = normals(c.N * c.D, "dy");
  const auto dresidual = normals(c.N * c.D, "dresidual");
  const auto dw_before = normals(c.D, "dw");
  auto dw = dw_before;
  std::vector<float> dh(data.x.size());

  ops::rms_norm_backward(*ctx,
                         {.dh = view(dh, data.shape),
                          .dw = view(dw, {c.D}),
                          .dy = view(dy, data.shape),
                          .dresidual = c.residual ? view(dresidual, data.shape) : ConstTensorView{},
                          .h = view(std::as_const(data.h), data.shape),
                          .rstd = view(std::as_const(data.rstd), {c.N}),
                          .w = view(std::as_const(data.w), {c.D})});

  const auto want =
      test::rms_norm_gradients(widen(data.h), widen(data.w), widen(dy),
                               c.residual ? widen(dresidual) : Doubles{}, widen(dw_before), 1e-5);
  EXPECT_TRUE(close(dh, want.dh, tolerance(4)));
  EXPECT_TRUE(close(dw, want.dw, tolerance(c.N)));
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsNorm,
                         ::testing::Values(Case{0, 5, false}, Case{1, 1, false}, Case{3, 257, true},
                                           Case{130, 24, true}, Case{65, 16, false},
                                           Case{5, 2048, true}, Case{300, 33, false}));

TEST(RmsNormGradient, EqualsFiniteDifferences) {
  const Case c{3, 7, false};
  const CpuContext ctx;
  Data data(c);
  data.forward(*ctx, false);
  const auto dy = normals(c.N * c.D, "dy");
  std::vector<float> dw(7), dh(21);

  ops::rms_norm_backward(*ctx, {.dh = view(dh, data.shape),
                                .dw = view(dw, {c.D}),
                                .dy = view(dy, data.shape),
                                .dresidual = {},
                                .h = view(std::as_const(data.h), data.shape),
                                .rstd = view(std::as_const(data.rstd), {c.N}),
                                .w = view(std::as_const(data.w), {c.D})});

  Doubles x = widen(data.x), w = widen(data.w);
  const auto loss = [&] { return dot(test::rms_norm_reference(x, w, 1e-5).y, widen(dy)); };
  EXPECT_TRUE(close(dh, test::numeric_gradient(x, loss), {1e-5, 1e-5}));
  EXPECT_TRUE(close(dw, test::numeric_gradient(w, loss), {1e-5, 1e-5}));
}

TEST(RmsNormAliases, OutputsMayOverwriteInputs) {
  const Case c{70, 37, true};
  const CpuContext ctx;
  Data apart(c), in_place(c);
  apart.forward(*ctx, true);

  ops::rms_norm_forward(*ctx, {.y = view(in_place.y, in_place.shape),
                               .h = view(in_place.residual, in_place.shape),
                               .rstd = view(in_place.rstd, {c.N}),
                               .x = view(std::as_const(in_place.x), in_place.shape),
                               .residual = view(std::as_const(in_place.residual), in_place.shape),
                               .w = view(std::as_const(in_place.w), {c.D})});
  EXPECT_EQ(in_place.residual, apart.h);
  EXPECT_EQ(in_place.y, apart.y);

  const auto dy = normals(c.N * c.D, "dy"), dresidual = normals(c.N * c.D, "dresidual");
  const auto backward = [&](std::vector<float>& dh, const std::vector<float>& dy_in,
                            const std::vector<float>& dresidual_in) {
    std::vector<float> dw(static_cast<std::size_t>(c.D));
    ops::rms_norm_backward(*ctx, {.dh = view(dh, apart.shape),
                                  .dw = view(dw, {c.D}),
                                  .dy = view(dy_in, apart.shape),
                                  .dresidual = view(dresidual_in, apart.shape),
                                  .h = view(std::as_const(apart.h), apart.shape),
                                  .rstd = view(std::as_const(apart.rstd), {c.N}),
                                  .w = view(std::as_const(apart.w), {c.D})});
    return dw;
  };
  std::vector<float> dh(dy.size()), over_dy = dy, over_dresidual = dresidual;
  const auto dw = backward(dh, dy, dresidual);
  EXPECT_EQ(backward(over_dy, over_dy, dresidual), dw);
  EXPECT_EQ(over_dy, dh);
  EXPECT_EQ(backward(over_dresidual, dy, over_dresidual), dw);
  EXPECT_EQ(over_dresidual, dh);
}

TEST(RmsNormDeterminism, ThreadsAndNeighboursDoNotChangeBits) {
  const Case c{200, 45, true};
  const CpuContext one(1), two(2);
  Data a(c), b(c);
  a.forward(*one, true);
  b.forward(*two, true);
  EXPECT_EQ(a.y, b.y);
  EXPECT_EQ(a.rstd, b.rstd);

  const auto dy = normals(c.N * c.D, "dy");
  std::vector<std::vector<float>> dws, dhs;
  for (const CpuContext* ctx : {&one, &two}) {
    std::vector<float> dw(static_cast<std::size_t>(c.D)), dh(dy.size());
    ops::rms_norm_backward(**ctx, {.dh = view(dh, a.shape),
                                   .dw = view(dw, {c.D}),
                                   .dy = view(dy, a.shape),
                                   .dresidual = {},
                                   .h = view(std::as_const(a.h), a.shape),
                                   .rstd = view(std::as_const(a.rstd), {c.N}),
                                   .w = view(std::as_const(a.w), {c.D})});
    dws.push_back(dw);
    dhs.push_back(dh);
  }
  EXPECT_EQ(dws[0], dws[1]);
  EXPECT_EQ(dhs[0], dhs[1]);

  Data last(Case{1, c.D, true});  // row 199 alone
  std::copy(a.x.end() - c.D, a.x.end(), last.x.begin());
  std::copy(a.residual.end() - c.D, a.residual.end(), last.residual.begin());
  last.forward(*two, true);
  EXPECT_EQ(last.y, std::vector<float>(a.y.end() - c.D, a.y.end()));
}

TEST(RmsNormErrors, RejectsBrokenContracts) {
  const CpuContext ctx;
  const Case c{2, 4, true};
  Data data(c);
  const auto base = [&] {
    return ops::RmsNormForward{.y = view(data.y, data.shape),
                               .h = view(data.h, data.shape),
                               .rstd = view(data.rstd, {2}),
                               .x = view(std::as_const(data.x), data.shape),
                               .residual = view(std::as_const(data.residual), data.shape),
                               .w = view(std::as_const(data.w), {4})};
  };
  EXPECT_NO_THROW(ops::rms_norm_forward(*ctx, base()));
  auto wrong_w = base();
  wrong_w.w.shape = {3};
  EXPECT_THROW(ops::rms_norm_forward(*ctx, wrong_w), Error);
  auto wrong_dtype = base();
  wrong_dtype.x.dtype = DType::bf16;
  EXPECT_THROW(ops::rms_norm_forward(*ctx, wrong_dtype), Error);
  auto no_h = base();
  no_h.h = {};
  EXPECT_THROW(ops::rms_norm_forward(*ctx, no_h), Error);
  auto no_data = base();
  no_data.y.data = nullptr;
  EXPECT_THROW(ops::rms_norm_forward(*ctx, no_data), Error);
  Context bare;  // no scratch
  std::vector<float> dw(4);
  EXPECT_THROW(ops::rms_norm_backward(bare, {.dh = view(data.h, data.shape),
                                             .dw = view(dw, {4}),
                                             .dy = view(std::as_const(data.y), data.shape),
                                             .dresidual = {},
                                             .h = view(std::as_const(data.x), data.shape),
                                             .rstd = view(std::as_const(data.rstd), {2}),
                                             .w = view(std::as_const(data.w), {4})}),
               Error);
}

}  // namespace
}  // namespace grist
