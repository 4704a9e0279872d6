// The experts' grouped products against a loop of cuBLAS calls over the experts, which does the
// products alone: no gathers, no SwiGLU, no sums of row weights.
#include "grist/ops/experts.h"

#include <fmt/core.h>

#include "cases.h"
#include "grist/core/random.h"
#include "grist/ops/dispatch.h"
#include "grist/ops/router.h"

namespace grist::bench {

namespace {

constexpr DType A = DType::bf16;

// An MoE layer's operands, with a random routing.
struct Layer {
  Layer(const Bench& b, const Sizes::Experts& e)
      : bench(b),
        o(b.ctx),
        N(b.sizes.N),
        D(b.sizes.D),
        E(e.E),
        F(e.F),
        R(N * e.K),
        x(o.normals(A, {N, D})),
        rows(o.normals(A, {R, D})),
        z(o.normals(A, {R, 2 * F})),
        dz(o.normals(A, {R, 2 * F})),
        a(o.normals(A, {R, F})),
        row_token(o.empty(DType::i32, {R})),
        row_weight(o.empty(DType::f32, {R})),
        drow_weight(o.empty(DType::f32, {R})),
        offsets(o.empty(DType::i32, {E + 1})),
        w13(o.weight({E, 2 * F, D})),
        w2(o.weight({E, D, F})),
        dw13(o.zeros(DType::f32, {E, 2 * F, D})),
        dw2(o.zeros(DType::f32, {E, D, F})) {
    Operands routing(b.ctx);
    const TensorView ids = routing.empty(DType::i32, {N, e.K}),
                     weights = routing.empty(DType::f32, {N, e.K}),
                     slot_row = routing.empty(DType::i32, {N, e.K});
    // Numbers of their own for each token: rows of a repeated block would all choose alike.
    const Random random(1, "logits");
    std::vector<float> logits;
    for (std::int64_t i = 0; i < N * E; ++i)
      logits.push_back(static_cast<float>(random.uniform(static_cast<std::uint64_t>(i))));
    ops::router_forward(
        b.ctx, {.ids = ids, .weights = weights, .logits = routing.of(logits, {N, E}), .mode = {}});
    ops::dispatch_plan(b.ctx, {.expert_offsets = offsets,
                               .row_token = row_token,
                               .row_weight = row_weight,
                               .slot_row = slot_row,
                               .ids = ids,
                               .weights = weights,
                               .num_experts = E});
    host_offsets = to_host<std::int32_t>(b.ctx, offsets);
    text = fmt::format("N={} R={} E={} D={} F={}", N, R, E, D, F);
  }
  // product(rows of expert, first row, expert) for each.
  template <class Product> std::vector<Way> loop(Product product) const {
    if (!bench.cublas) return {};
    const auto all = [this, product] {
      for (std::int64_t e = 0; e < E; ++e) {
        const std::int64_t first = host_offsets[static_cast<std::size_t>(e)];
        const std::int64_t n = host_offsets[static_cast<std::size_t>(e + 1)] - first;
        if (n > 0) product(n, first, e);
      }
    };
    return {{"cuBLAS, a loop over the experts", with(cuda::DenseMatmul::cublas, all)}};
  }
  double flops(double products) const {
    return 2.0 * products * static_cast<double>(R) * static_cast<double>(D * F);
  }
  // Bytes of elements a row (gathers counted as if each row came from memory), and of weights.
  double bytes(double elements_a_row, double weight_bytes_an_expert) const {
    return 2.0 * elements_a_row * static_cast<double>(R) +
           weight_bytes_an_expert * static_cast<double>(E);
  }

  const Bench& bench;
  Operands o;
  std::int64_t N, D, E, F, R;
  TensorView x, rows, z, dz, a, row_token, row_weight, drow_weight, offsets;
  ops::WeightView w13, w2;
  TensorView dw13, dw2;
  std::vector<std::int32_t> host_offsets;
  std::string text;
};

// n rows of `width` elements from row `first` on.
TensorView part(const TensorView& v, std::int64_t first, std::int64_t n, std::int64_t width) {
  auto* begin = static_cast<std::byte*>(v.data);
  return {begin + static_cast<std::size_t>(first * width) * size_of(v.dtype), v.dtype, {n, width}};
}
ops::WeightView of_expert(const ops::WeightView& w, std::int64_t e) {
  ops::WeightView one = w;
  one.shape = {w.shape[1], w.shape[2]};
  one.data += static_cast<std::size_t>(e * one.shape.numel()) * size_of(w.dtype);
  return one;
}

void measure_forward(const Layer& l) {
  const Bench& b = l.bench;
  const std::int64_t D = l.D, F = l.F;
  const auto d = static_cast<double>(D), f = static_cast<double>(F);
  b.table.measure({.kernel = "expert_up_forward",
                   .shape = l.text,
                   .flops = l.flops(2),
                   .bytes = l.bytes(d + 3 * f, 4 * d * f),
                   .run =
                       [&] {
                         ops::expert_up_forward(b.ctx, {.z = l.dz,
                                                        .a = l.a,
                                                        .x = l.x,
                                                        .row_token = l.row_token,
                                                        .expert_offsets = l.offsets,
                                                        .w = l.w13});
                       },
                   .alternatives = l.loop([&](std::int64_t n, std::int64_t r, std::int64_t e) {
                     cuda::cublas::linear_forward(b.ctx, {.y = part(l.dz, r, n, 2 * F),
                                                          .x = part(l.rows, r, n, D),
                                                          .w = of_expert(l.w13, e)});
                   })});
  b.table.measure(
      {.kernel = "expert_down_forward",
       .shape = l.text,
       .flops = l.flops(1),
       .bytes = l.bytes(d + f, 2 * d * f),
       .run =
           [&] {
             ops::expert_down_forward(
                 b.ctx, {.y = l.rows, .a = l.a, .expert_offsets = l.offsets, .w = l.w2});
           },
       .alternatives = l.loop([&](std::int64_t n, std::int64_t r, std::int64_t e) {
         cuda::cublas::linear_forward(
             b.ctx, {.y = part(l.rows, r, n, D), .x = part(l.a, r, n, F), .w = of_expert(l.w2, e)});
       })});
}

void measure_backward(const Layer& l) {
  const Bench& b = l.bench;
  const std::int64_t D = l.D, F = l.F;
  const auto d = static_cast<double>(D), f = static_cast<double>(F);
  b.table.measure({.kernel = "expert_down_backward",
                   .shape = l.text,
                   .flops = l.flops(1),
                   .bytes = l.bytes(d + 5 * f, 2 * d * f),
                   .run =
                       [&] {
                         ops::expert_down_backward(b.ctx, {.dz = l.dz,
                                                           .weighted_a = l.a,
                                                           .drow_weight = l.drow_weight,
                                                           .dy = l.x,
                                                           .z = l.z,
                                                           .row_token = l.row_token,
                                                           .row_weight = l.row_weight,
                                                           .expert_offsets = l.offsets,
                                                           .w = l.w2});
                       },
                   .alternatives = l.loop([&](std::int64_t n, std::int64_t r, std::int64_t e) {
                     cuda::cublas::linear_backward_input(b.ctx, {.dx = part(l.a, r, n, F),
                                                                 .dy = part(l.rows, r, n, D),
                                                                 .w = of_expert(l.w2, e)});
                   })});
  b.table.measure(
      {.kernel = "expert_up_backward",
       .shape = l.text,
       .flops = l.flops(2),
       .bytes = l.bytes(d + 2 * f, 4 * d * f),
       .run =
           [&] {
             ops::expert_up_backward(
                 b.ctx, {.dx = l.rows, .dz = l.z, .expert_offsets = l.offsets, .w = l.w13});
           },
       .alternatives = l.loop([&](std::int64_t n, std::int64_t r, std::int64_t e) {
         cuda::cublas::linear_backward_input(
             b.ctx,
             {.dx = part(l.rows, r, n, D), .dy = part(l.z, r, n, 2 * F), .w = of_expert(l.w13, e)});
       })});
}

void measure_gradients(const Layer& l) {
  const Bench& b = l.bench;
  const std::int64_t D = l.D, F = l.F;
  const auto d = static_cast<double>(D), f = static_cast<double>(F);
  b.table.measure({.kernel = "expert_weight_gradient",
                   .shape = fmt::format("R={} E={} O={} I={}", l.R, l.E, 2 * F, D),
                   .flops = l.flops(2),
                   .bytes = l.bytes(d + 2 * f, 16 * d * f),
                   .run =
                       [&] {
                         ops::expert_weight_gradient(b.ctx, {.dw = l.dw13,
                                                             .dy = l.z,
                                                             .x = l.x,
                                                             .x_token = l.row_token,
                                                             .expert_offsets = l.offsets});
                       },
                   .alternatives = l.loop([&](std::int64_t n, std::int64_t r, std::int64_t e) {
                     cuda::cublas::linear_backward_weight(b.ctx,
                                                          {.dw = part(l.dw13, e * 2 * F, 2 * F, D),
                                                           .dy = part(l.z, r, n, 2 * F),
                                                           .x = part(l.rows, r, n, D)});
                   })});
  b.table.measure({.kernel = "expert_weight_gradient",
                   .shape = fmt::format("R={} E={} O={} I={}", l.R, l.E, D, F),
                   .flops = l.flops(1),
                   .bytes = l.bytes(d + f, 8 * d * f),
                   .run =
                       [&] {
                         ops::expert_weight_gradient(b.ctx, {.dw = l.dw2,
                                                             .dy = l.x,
                                                             .dy_token = l.row_token,
                                                             .x = l.a,
                                                             .expert_offsets = l.offsets});
                       },
                   .alternatives = l.loop([&](std::int64_t n, std::int64_t r, std::int64_t e) {
                     cuda::cublas::linear_backward_weight(b.ctx, {.dw = part(l.dw2, e * D, D, F),
                                                                  .dy = part(l.rows, r, n, D),
                                                                  .x = part(l.a, r, n, F)});
                   })});
}

}  // namespace

void measure_experts(const Bench& b) {
  if (!b.table.wants({"expert_up_forward", "expert_down_forward", "expert_down_backward",
                      "expert_up_backward", "expert_weight_gradient"}))
    return;
  for (const Sizes::Experts& e : b.sizes.experts) {
    const Layer layer(b, e);
    measure_forward(layer);
    measure_backward(layer);
    measure_gradients(layer);
  }
}

}  // namespace grist::bench
