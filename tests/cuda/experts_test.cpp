// Grouped matmuls of a MoE layer against float64 formulas: fp32 and bf16, tails and empty experts,
// widths that tiles do not divide; the portable kernels and those of Hopper.
#include "grist/ops/experts.h"

#include <gtest/gtest.h>

#include <cstring>

#include "cuda/fixture.h"
#include "ops/experts_reference.h"

namespace grist {
namespace {

using namespace test::experts;  // NOLINT(google-build-using-namespace)
using test::OnDevice;

struct Case {
  Sizes sizes;
  DType dtype;
  int capability = 80;
};

ops::WeightView weight(const OnDevice& w) {
  const TensorView v = w.view();
  return {.data = static_cast<std::byte*>(v.data),
          .device = Device::cuda,
          .dtype = v.dtype,
          .shape = v.shape};
}

// What the device multiplies: numbers that bf16 can hold.
Layer rounded(Layer l) {
  for (Floats* v : {&l.x, &l.w13, &l.w2, &l.dy}) *v = test::rounded_to_bf16(*v);
  return l;
}

// A layer's operands and results on the device.
class DeviceLayer {
 public:
  DeviceLayer(const Context& ctx, const Layer& l, DType dtype)
      : ctx_(ctx),
        l_(l),
        token_(ctx, l.row_token, {l.R}),
        offsets_(ctx, l.offsets, {l.E + 1}),
        x_(ctx, l.x, {l.N, l.D}, dtype),
        dy_(ctx, l.dy, {l.N, l.D}, dtype),
        row_weight_(ctx, l.row_weight, {l.R}),
        w13_(ctx, l.w13, {l.E, 2 * l.F, l.D}, dtype),
        w2_(ctx, l.w2, {l.E, l.D, l.F}, dtype),
        z_(untouched({l.R, 2 * l.F}, dtype)),
        dz_(untouched({l.R, 2 * l.F}, dtype)),
        a_(untouched({l.R, l.F}, dtype)),
        weighted_a_(untouched({l.R, l.F}, dtype)),
        y_(untouched({l.R, l.D}, dtype)),
        dx_(untouched({l.R, l.D}, dtype)),
        drow_weight_(untouched({l.R}, DType::f32)),
        dw13_(ctx, DType::f32, {l.E, 2 * l.F, l.D}),
        dw2_(ctx, DType::f32, {l.E, l.D, l.F}) {}

  Results run(bool indexed = true) {
    const ConstTensorView token = indexed ? ConstTensorView(token_) : ConstTensorView();
    ops::expert_up_forward(ctx_, {.z = z_,
                                  .a = a_,
                                  .x = x_,
                                  .row_token = token,
                                  .expert_offsets = offsets_,
                                  .w = weight(w13_)});
    ops::expert_down_forward(ctx_,
                             {.y = y_, .a = a_, .expert_offsets = offsets_, .w = weight(w2_)});
    ops::expert_down_backward(ctx_, {.dz = dz_,
                                     .weighted_a = weighted_a_,
                                     .drow_weight = drow_weight_,
                                     .dy = dy_,
                                     .z = z_,
                                     .row_token = token,
                                     .row_weight = row_weight_,
                                     .expert_offsets = offsets_,
                                     .w = weight(w2_)});
    ops::expert_up_backward(ctx_,
                            {.dx = dx_, .dz = dz_, .expert_offsets = offsets_, .w = weight(w13_)});
    weight_gradients(token, false);
    return {z_.floats(),           a_.floats(),  y_.floats(),    dz_.floats(), weighted_a_.floats(),
            drow_weight_.floats(), dx_.floats(), dw13_.floats(), dw2_.floats()};
  }
  // After run(): adds both weight gradients once more and returns them.
  Results add_weight_gradients() {
    weight_gradients(token_, true);
    Results o;
    o.dw13 = dw13_.floats();
    o.dw2 = dw2_.floats();
    return o;
  }

 private:
  OnDevice untouched(const Shape& shape, DType dtype) const {
    return {ctx_, Floats(at(shape.numel()), kUntouched), shape, dtype};
  }
  void weight_gradients(const ConstTensorView& token, bool accumulate) {
    ops::expert_weight_gradient(ctx_, {.dw = dw13_,
                                       .dy = dz_,
                                       .dy_token = {},
                                       .x = x_,
                                       .x_token = token,
                                       .expert_offsets = offsets_,
                                       .accumulate = accumulate});
    ops::expert_weight_gradient(ctx_, {.dw = dw2_,
                                       .dy = dy_,
                                       .dy_token = token,
                                       .x = weighted_a_,
                                       .x_token = {},
                                       .expert_offsets = offsets_,
                                       .accumulate = accumulate});
  }
  const Context& ctx_;
  const Layer& l_;
  OnDevice token_, offsets_, x_, dy_, row_weight_, w13_, w2_;
  OnDevice z_, dz_, a_, weighted_a_, y_, dx_, drow_weight_, dw13_, dw2_;
};

// bf16 results may differ from the sums by 2^-8 of their value; that of fp32 results is 0.
double rounding(DType dtype) {
  return dtype == DType::bf16 ? 1.0 / 256 : 0.0;
}

void expect_close(const Layer& l, const Results& got, const Judge& want, double relative) {
  const std::int64_t D = l.D, F = l.F, most = l.used() + 1;
  const auto rows = [&](const Floats& g, const Doubles& w, std::int64_t length, double r) {
    return used_rows_close(g, w, length, r);
  };
  EXPECT_TRUE(rows(got.z, want.z, D, relative)) << "z";
  EXPECT_TRUE(rows(got.a, want.a, D, relative)) << "a";
  EXPECT_TRUE(rows(got.y, want.y, D * F, relative)) << "y";
  EXPECT_TRUE(rows(got.dz, want.dz, D * D, relative)) << "dz";
  EXPECT_TRUE(rows(got.weighted_a, want.weighted_a, D, relative)) << "weighted_a";
  EXPECT_TRUE(rows(got.drow_weight, want.drow_weight, D * F, 0)) << "drow_weight";
  EXPECT_TRUE(rows(got.dx, want.dx, D * F * D, relative)) << "dx";
  EXPECT_TRUE(rows(got.dw13, want.dw13, most * D, 0)) << "dw13";  // zeros of empty experts
  EXPECT_TRUE(rows(got.dw2, want.dw2, most * D, 0)) << "dw2";
}

class CudaExperts : public ::testing::TestWithParam<Case> {
 protected:
  test::AsDevice device{GetParam().capability};
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
  DeviceLayer on_device(*ctx, layer, dtype);
  const Results once = on_device.run(), twice = on_device.add_weight_gradients();

  const auto expect_doubled = [](const Floats& got, const Floats& single) {
    for (std::size_t i = 0; i < got.size(); ++i) {
      const float want = 2 * single[i];
      ASSERT_LE(std::abs(got[i] - want), 1e-4F + 1e-5F * std::abs(want)) << i;
    }
  };
  expect_doubled(twice.dw13, once.dw13);
  expect_doubled(twice.dw2, once.dw2);
}

// Tiles are 64 or 128 rows high. bf16 widths that are multiples of 8 go through tensor cores; on
// Hopper 128 or 256 columns and 64 of the depth at a time.
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
        Case{{50, 136, 72, {0, 17, 150}}, DType::bf16}, Case{{30, 40, 32, {0, 0}}, DType::bf16},
        Case{{7, 9, 5, {3, 0, 70}}, DType::bf16, 90}, Case{{8, 8, 8, {1}}, DType::bf16, 90},
        Case{{30, 40, 32, {0, 0}}, DType::bf16, 90},
        Case{{40, 64, 64, {127, 0, 128, 129, 1}}, DType::bf16, 90},
        Case{{9, 200, 192, {3, 8, 0}}, DType::bf16, 90},
        Case{{50, 136, 72, {0, 17, 150}}, DType::bf16, 90},
        Case{{5, 16, 272, {2, 65}}, DType::bf16, 90}, Case{{5, 328, 8, {1, 66}}, DType::bf16, 90},
        Case{{20, 24, 24, {1, 2, 3, 4, 5, 6, 7}}, DType::bf16, 90}),
    [](const auto& tested) {
      const Case& c = tested.param;
      return std::string(name_of(c.dtype)) + "_D" + std::to_string(c.sizes.D) + "_F" +
             std::to_string(c.sizes.F) + (c.capability == 90 ? "_sm90" : "");
    });

// A row's bits are the same alone, elsewhere in the list and with other neighbours.
struct Kernels {
  DType dtype;
  int capability;
};
class CudaExpertRows : public ::testing::TestWithParam<Kernels> {
 protected:
  test::AsDevice device{GetParam().capability};
  DType dtype = GetParam().dtype;
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

  const Results all = DeviceLayer(*ctx, many, dtype).run();
  const Results alone = DeviceLayer(*ctx, one, dtype).run();

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

  const Results indexed = DeviceLayer(*ctx, l, dtype).run();
  const Results dense = DeviceLayer(*ctx, l, dtype).run(false);

  EXPECT_EQ(dense.z, indexed.z);
  EXPECT_EQ(dense.dz, indexed.dz);
  EXPECT_EQ(dense.dw13, indexed.dw13);
  EXPECT_EQ(dense.dw2, indexed.dw2);
}

INSTANTIATE_TEST_SUITE_P(DTypes, CudaExpertRows,
                         ::testing::Values(Kernels{DType::f32, 80}, Kernels{DType::bf16, 80},
                                           Kernels{DType::bf16, 90}),
                         [](const auto& tested) {
                           return std::string(name_of(tested.param.dtype)) + "_sm" +
                                  std::to_string(tested.param.capability);
                         });

}  // namespace
}  // namespace grist
