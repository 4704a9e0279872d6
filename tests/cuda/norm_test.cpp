#include "grist/ops/norm.h"

#include "cuda/elementwise.h"
#include "ops/norm_reference.h"
#include "support/gradient.h"

namespace grist::test {
namespace {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

struct Case {
  std::int64_t N, D;
  bool residual;
};

// Rows of eight threads, of a warp and of a block, with vectors and single elements, longer than
// what a thread holds; row counts around those of a block and of a chunk.
const Case kCases[] = {{1, 1, true},    {31, 5, false},   {33, 128, true},  {257, 64, false},
                       {8, 192, true},  {9, 200, false},  {65, 257, true},  {2, 1024, true},
                       {3, 2048, true}, {33, 1100, true}, {2, 9000, false}, {2, 4133, true}};

struct Device {
  Device(const Context& ctx, const Case& c, DType dtype)
      : shape{c.N, c.D},
        x(ctx, activations(c.N * c.D, "x", dtype), shape, dtype),
        residual(ctx, activations(c.N * c.D, "residual", dtype), shape, dtype),
        w(ctx, normals(c.D, "w"), {c.D}),
        y(ctx, dtype, shape),
        h(ctx, dtype, shape),
        rstd(ctx, DType::f32, {c.N}) {}
  ops::RmsNormForward forward(bool with_residual) const {
    return {.y = y,
            .h = with_residual ? h.view() : TensorView{},
            .rstd = rstd,
            .x = x,
            .residual = with_residual ? ConstTensorView(residual) : ConstTensorView{},
            .w = w,
            .eps = 1e-5F};
  }
  const OnDevice& stored_h(bool with_residual) const { return with_residual ? h : x; }
  Shape shape;
  OnDevice x, residual, w, y, h, rstd;
};

void check_forward(const Case& c, DType dtype) {
  const CudaContext ctx;
  const Device d(*ctx, c, dtype);

  ops::rms_norm_forward(*ctx, d.forward(c.residual));

  Doubles h = widen(d.x.floats());
  const Floats residual = d.residual.floats();
  for (std::size_t i = 0; i < h.size() && c.residual; ++i) h[i] += static_cast<double>(residual[i]);
  const Floats stored = d.stored_h(c.residual).floats();
  EXPECT_TRUE(close(stored, h, stored_as(dtype, {1e-6, 1e-6})));
  const auto want = rms_norm_reference(widen(stored), widen(d.w.floats()), 1e-5);
  EXPECT_TRUE(close(d.y.floats(), want.y, stored_as(dtype, {2e-6, 1e-6})));
  EXPECT_TRUE(close(d.rstd.floats(), want.rstd, {2e-6, 0}));
}

void check_backward(const Case& c, DType dtype) {
  const CudaContext ctx;
  const Device d(*ctx, c, dtype);
  ops::rms_norm_forward(*ctx, d.forward(c.residual));
  const OnDevice dy(*ctx, activations(c.N * c.D, "dy", dtype), d.shape, dtype);
  const OnDevice dresidual(*ctx, activations(c.N * c.D, "dresidual", dtype), d.shape, dtype);
  const OnDevice dw(*ctx, normals(c.D, "dw"), {c.D});
  const OnDevice dh(*ctx, dtype, d.shape);
  const OnDevice& h = d.stored_h(c.residual);
  const auto want = rms_norm_gradients(widen(h.floats()), widen(d.w.floats()), widen(dy.floats()),
                                       c.residual ? widen(dresidual.floats()) : Doubles{},
                                       widen(dw.floats()), 1e-5);

  ops::rms_norm_backward(*ctx,
                         {.dh = dh,
                          .dw = dw,
                          .dy = dy,
                          .dresidual = c.residual ? ConstTensorView(dresidual) : ConstTensorView{},
                          .h = h,
                          .rstd = d.rstd,
                          .w = d.w});

  EXPECT_TRUE(close(dh.floats(), want.dh, stored_as(dtype, tolerance(4))));
  EXPECT_TRUE(close(dw.floats(), want.dw, tolerance(c.N)));
}

TEST(CudaRmsNorm, ForwardMatchesFormula) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      for (const Case& c : kCases) {
        SCOPED_TRACE((label({c.N, c.D}, dtype)));
        check_forward(c, dtype);
      }
    }
  });
}

TEST(CudaRmsNorm, BackwardMatchesFormula) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      for (const Case& c : kCases) {
        SCOPED_TRACE((label({c.N, c.D}, dtype)));
        check_backward(c, dtype);
      }
    }
  });
}

// What a sum of gradients over micro-batches needs: rows alone, and all bits every time.
TEST(CudaRmsNorm, ARowDependsOnItselfAlone) {
  const Case c{37, 192, true};
  for (const DType dtype : kActivationTypes) {
    const CudaContext ctx;
    const Device d(*ctx, c, dtype);
    ops::rms_norm_forward(*ctx, d.forward(true));
    const Device last(*ctx, {1, c.D, true}, dtype);
    ops::RmsNormForward alone = last.forward(true);
    alone.x = rows(ConstTensorView(d.x), 36, 37);
    alone.residual = rows(ConstTensorView(d.residual), 36, 37);
    ops::rms_norm_forward(*ctx, alone);
    const Floats all = d.y.floats();
    EXPECT_EQ(last.y.floats(), Floats(all.end() - c.D, all.end()));
  }
}

TEST(CudaRmsNorm, BitsDoNotDependOnTheSchedule) {
  const Case c{300, 192, false};
  std::vector<Floats> dws;
  for_each_schedule([&] {
    const CudaContext ctx;
    const Device d(*ctx, c, DType::f32);
    ops::rms_norm_forward(*ctx, d.forward(false));
    const OnDevice dw(*ctx, normals(c.D, "dw"), {c.D}), dh(*ctx, DType::f32, d.shape);
    ops::rms_norm_backward(
        *ctx, {.dh = dh, .dw = dw, .dy = d.x, .dresidual = {}, .h = d.x, .rstd = d.rstd, .w = d.w});
    dws.push_back(dw.floats());
    EXPECT_EQ(dws.back(), dws.front());
  });
}

TEST(CudaRmsNorm, OutputsMayOverwriteInputs) {
  for (const Case c : {Case{70, 37, true}, {9, 1030, true}, {2, 8448, true}}) {
    for (const DType dtype : kActivationTypes) {
      const CudaContext ctx;
      const Device apart(*ctx, c, dtype), over(*ctx, c, dtype);
      ops::rms_norm_forward(*ctx, apart.forward(true));
      ops::RmsNormForward forward = over.forward(true);
      forward.h = over.residual;
      ops::rms_norm_forward(*ctx, forward);
      EXPECT_EQ(over.residual.floats(), apart.h.floats());
      EXPECT_EQ(over.y.floats(), apart.y.floats());

      const auto values = activations(c.N * c.D, "dy", dtype);
      const auto run = [&](const OnDevice& dh, const OnDevice& dy, const OnDevice& dresidual) {
        const OnDevice dw(*ctx, normals(c.D, "dw"), {c.D});
        ops::rms_norm_backward(*ctx, {.dh = dh,
                                      .dw = dw,
                                      .dy = dy,
                                      .dresidual = dresidual,
                                      .h = apart.h,
                                      .rstd = apart.rstd,
                                      .w = apart.w});
        return dw.floats();
      };
      const OnDevice dh(*ctx, dtype, apart.shape), dy(*ctx, values, apart.shape, dtype),
          over_dy(*ctx, values, apart.shape, dtype), over_x(*ctx, dtype, apart.shape);
      copy(*ctx, over_x, apart.x);
      const Floats dw = run(dh, dy, apart.x);
      EXPECT_EQ(run(over_dy, over_dy, apart.x), dw);
      EXPECT_EQ(over_dy.floats(), dh.floats());
      EXPECT_EQ(run(over_x, dy, over_x), dw);
      EXPECT_EQ(over_x.floats(), dh.floats());
    }
  }
}

}  // namespace
}  // namespace grist::test
