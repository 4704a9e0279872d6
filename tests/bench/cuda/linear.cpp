// Dense products against cuBLAS, and the output layer with its loss.
#include "grist/ops/linear.h"

#include <fmt/core.h>

#include "cases.h"
#include "grist/core/random.h"
#include "grist/ops/cross_entropy.h"

namespace grist::bench {

namespace {

constexpr DType A = DType::bf16;

double bytes_of(std::initializer_list<ConstTensorView> operands) {
  double sum = 0;
  for (const ConstTensorView& v : operands) sum += static_cast<double>(v.bytes());
  return sum;
}

// Our kernel, and cuBLAS beside it.
void measure_product(const Bench& b, Case c, const std::function<void()>& run) {
  c.run = with(cuda::DenseMatmul::own, run);
  if (b.cublas) c.alternatives = {{"cuBLAS", with(cuda::DenseMatmul::cublas, run)}};
  b.table.measure(c);
}

// y = x W^T for x (N, I), W (O, I).
void measure_layer(const Bench& b, std::int64_t I, std::int64_t O) {
  const std::int64_t N = b.sizes.N;
  Operands o(b.ctx);
  const TensorView x = o.normals(A, {N, I}), y = o.empty(A, {N, O}), dy = o.normals(A, {N, O}),
                   dx = o.empty(A, {N, I}), dw = o.zeros(DType::f32, {O, I});
  const ops::WeightView w = o.weight({O, I});
  const ConstTensorView weight(w.data, w.dtype, w.shape);
  const auto product = [&](const char* kernel, std::initializer_list<ConstTensorView> operands) {
    return Case{.kernel = kernel,
                .shape = fmt::format("N={} I={} O={}", N, I, O),
                .flops = 2.0 * static_cast<double>(N) * static_cast<double>(I * O),
                .bytes = bytes_of(operands),
                .run = {}};
  };
  measure_product(b, product("linear_forward", {x, weight, y}),
                  [&] { ops::linear_forward(b.ctx, {.y = y, .x = x, .w = w}); });
  measure_product(b, product("linear_backward_input", {dy, weight, dx}),
                  [&] { ops::linear_backward_input(b.ctx, {.dx = dx, .dy = dy, .w = w}); });
  measure_product(b, product("linear_backward_weight", {dy, x, dw, dw}),
                  [&] { ops::linear_backward_weight(b.ctx, {.dw = dw, .dy = dy, .x = x}); });
}

void measure_router_layer(const Bench& b) {
  const std::int64_t N = b.sizes.N, D = b.sizes.D, E = b.sizes.E;
  Operands o(b.ctx);
  const TensorView x = o.normals(A, {N, D}), dx = o.zeros(A, {N, D}),
                   logits = o.normals(DType::f32, {N, E}), dw = o.zeros(DType::f32, {E, D});
  const ops::WeightView w = o.weight({E, D}, DType::f32);
  const std::string text = fmt::format("N={} I={} O={} router", N, D, E);
  b.table.measure(
      {.kernel = "linear_forward", .shape = text, .bytes = bytes_of({x, logits, dw}), .run = [&] {
         ops::linear_forward(b.ctx, {.y = logits, .x = x, .w = w});
       }});
  b.table.measure({.kernel = "linear_backward_input",
                   .shape = text,
                   .bytes = bytes_of({dx, dx, logits, dw}),
                   .run = [&] {
                     ops::linear_backward_input(
                         b.ctx, {.dx = dx, .dy = logits, .w = w, .accumulate = true});
                   }});
  b.table.measure(
      {.kernel = "linear_backward_weight",
       .shape = text,
       .bytes = bytes_of({x, logits, dw, dw}),
       .run = [&] { ops::linear_backward_weight(b.ctx, {.dw = dw, .dy = logits, .x = x}); }});
}

void measure_loss(const Bench& b) {
  const std::int64_t N = b.sizes.loss_tokens, D = b.sizes.D, V = b.sizes.V;
  Operands o(b.ctx);
  const Random random(1, "targets");
  std::vector<std::int32_t> targets;
  for (std::int64_t n = 0; n < N; ++n)
    targets.push_back(static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(n), static_cast<std::uint64_t>(V))));
  const TensorView x = o.normals(A, {N, D}), dx = o.empty(A, {N, D}),
                   dw = o.zeros(DType::f32, {V, D}), losses = o.empty(DType::f32, {N}),
                   on_device = o.of(targets, {N}), grad_scale = o.of(std::vector{1e-4F}, {1});
  const ops::WeightView w = o.weight({V, D});
  std::vector<Way> alternatives;
  TensorView logits;
  if (b.cublas) {
    logits = o.normals(A, {N, V});
    const auto products = [&] {
      ops::linear_forward(b.ctx, {.y = logits, .x = x, .w = w});
      ops::linear_backward_input(b.ctx, {.dx = dx, .dy = logits, .w = w});
      ops::linear_backward_weight(b.ctx, {.dw = dw, .dy = logits, .x = x});
    };
    alternatives = {
        {"cuBLAS, the three products alone", with(cuda::DenseMatmul::cublas, products)}};
  }
  const auto loss = [&] {
    ops::linear_cross_entropy(b.ctx, {.losses = losses,
                                      .z = {},
                                      .dx = dx,
                                      .dw = dw,
                                      .x = x,
                                      .w = w,
                                      .targets = on_device,
                                      .grad_scale = grad_scale});
  };
  b.table.measure({.kernel = "linear_cross_entropy",
                   .shape = fmt::format("N={} D={} V={}", N, D, V),
                   .flops = 6.0 * static_cast<double>(N) * static_cast<double>(D * V),
                   .bytes = bytes_of({x, dx, dw, dw}) + 2.0 * static_cast<double>(D * V),
                   .run = with(cuda::DenseMatmul::automatic, loss),
                   .alternatives = alternatives});
}

}  // namespace

void measure_linear(const Bench& b) {
  const std::int64_t D = b.sizes.D;
  if (b.table.wants({"linear_forward", "linear_backward_input", "linear_backward_weight"})) {
    measure_layer(b, D, D);
    measure_layer(b, D, 2 * b.sizes.F);
    measure_layer(b, b.sizes.F, D);
    measure_router_layer(b);
  }
  if (b.table.wants({"linear_cross_entropy"})) measure_loss(b);
}

}  // namespace grist::bench
