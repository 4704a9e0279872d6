#pragma once
// A MoE layer on the device, for tests of the grouped matmuls: its operands, a run of all five
// operations, and the comparison with the float64 formulas.
#include "cuda/fixture.h"
#include "grist/ops/experts.h"
#include "kernels/cuda/launch.h"
#include "ops/experts_reference.h"

namespace grist::test::experts {

// While it lives, kernels are chosen as on a device of this compute capability.
class AsDevice {
 public:
  explicit AsDevice(int capability) : before_(cuda::override_compute_capability(capability)) {}
  ~AsDevice() { cuda::override_compute_capability(before_); }
  AsDevice(const AsDevice&) = delete;
  AsDevice& operator=(const AsDevice&) = delete;

 private:
  int before_;
};

inline ops::WeightView weight(const OnDevice& w) {
  const TensorView v = w.view();
  return {.data = static_cast<std::byte*>(v.data),
          .device = Device::cuda,
          .dtype = v.dtype,
          .shape = v.shape};
}

// What the device multiplies: numbers that bf16 can hold.
inline Layer rounded(Layer l) {
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
inline double rounding(DType dtype) {
  return dtype == DType::bf16 ? 1.0 / 256 : 0.0;
}

inline void expect_close(const Layer& l, const Results& got, const Judge& want, double relative) {
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

}  // namespace grist::test::experts
