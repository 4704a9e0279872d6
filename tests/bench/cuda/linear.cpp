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

void measure_layer(const Bench& b, const Products& p) {
  Operands o(b.ctx);
  const TensorView x = o.normals(A, {p.N, p.I}), y = o.normals(A, {p.N, p.O}),
                   dx = o.empty(A, {p.N, p.I}), dw = o.zeros(DType::f32, {p.O, p.I});
  const ops::WeightView w = o.weight({p.O, p.I});
  const ConstTensorView weight(w.data, w.dtype, w.shape);
  const std::string text = fmt::format("N={} I={} O={}", p.N, p.I, p.O);
  const double flops = 2.0 * static_cast<double>(p.N) * static_cast<double>(p.I * p.O);
  const auto way = [&](auto product) {
    return b.cublas == nullptr ? std::vector<Way>{} : std::vector<Way>{{"cuBLAS", product}};
  };
  const TensorView out = o.empty(A, {p.N, p.O});
  b.table.measure({.kernel = "linear_forward",
                   .shape = text,
                   .flops = flops,
                   .bytes = bytes_of({x, weight, out}),
                   .run = [&] { ops::linear_forward(b.ctx, {.y = out, .x = x, .w = w}); },
                   .alternatives = way([&] { b.cublas->forward(out.data, x.data, w.data, p); })});
  b.table.measure(
      {.kernel = "linear_backward_input",
       .shape = text,
       .flops = flops,
       .bytes = bytes_of({y, weight, dx}),
       .run = [&] { ops::linear_backward_input(b.ctx, {.dx = dx, .dy = y, .w = w}); },
       .alternatives = way([&] { b.cublas->backward_input(dx.data, y.data, w.data, p); })});
  b.table.measure(
      {.kernel = "linear_backward_weight",
       .shape = text,
       .flops = flops,
       .bytes = bytes_of({y, x, dw, dw}),
       .run = [&] { ops::linear_backward_weight(b.ctx, {.dw = dw, .dy = y, .x = x}); },
       .alternatives = way([&] { b.cublas->backward_weight(dw.as<float>(), y.data, x.data, p); })});
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
  const Products p{N, D, V};
  Operands o(b.ctx);
  const Random random(1, "targets");
  std::vector<std::int32_t> targets;
  for (std::int64_t n = 0; n < N; ++n)
    targets.push_back(static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(n), static_cast<std::uint64_t>(V))));
  const TensorView x = o.normals(A, {N, D}), dx = o.empty(A, {N, D}),
                   dw = o.zeros(DType::f32, {V, D}), losses = o.empty(DType::f32, {N}),
                   on_device = o.of(targets, {N});
  const ops::WeightView w = o.weight({V, D});
  std::vector<Way> alternatives;
  TensorView logits;
  if (b.cublas != nullptr) {
    logits = o.empty(A, {N, V});
    alternatives.push_back({"cuBLAS, the three products alone", [&] {
                              b.cublas->forward(logits.data, x.data, w.data, p);
                              b.cublas->backward_input(dx.data, logits.data, w.data, p);
                              b.cublas->backward_weight(dw.as<float>(), logits.data, x.data, p);
                            }});
  }
  b.table.measure({.kernel = "linear_cross_entropy",
                   .shape = fmt::format("N={} D={} V={}", N, D, V),
                   .flops = 6.0 * static_cast<double>(N) * static_cast<double>(D * V),
                   .bytes = bytes_of({x, dx, dw, dw}) + 2.0 * static_cast<double>(D * V),
                   .run =
                       [&] {
                         ops::linear_cross_entropy(b.ctx, {.losses = losses,
                                                           .dx = dx,
                                                           .dw = dw,
                                                           .x = x,
                                                           .w = w,
                                                           .targets = on_device,
                                                           .grad_scale = 1e-4F});
                       },
                   .alternatives = alternatives});
}

}  // namespace

void measure_linear(const Bench& b) {
  const std::int64_t N = b.sizes.N, D = b.sizes.D;
  if (b.table.wants({"linear_forward", "linear_backward_input", "linear_backward_weight"})) {
    measure_layer(b, {N, D, D});
    measure_layer(b, {N, D, 2 * b.sizes.F});
    measure_layer(b, {N, b.sizes.F, D});
    measure_router_layer(b);
  }
  if (b.table.wants({"linear_cross_entropy"})) measure_loss(b);
}

}  // namespace grist::bench
