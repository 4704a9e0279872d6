// Operations on flat ranges of parameters.
#include <fmt/core.h>

#include <algorithm>

#include "cases.h"
#include "grist/ops/optimizer.h"
#include "grist/ops/weight.h"

namespace grist::bench {

namespace {

void measure_adamw(const Bench& b) {
  const std::int64_t n = b.sizes.flat;
  Operands o(b.ctx);
  const TensorView p = o.normals(DType::f32, {n}), m = o.zeros(DType::f32, {n}),
                   v = o.zeros(DType::f32, {n}), grad = o.normals(DType::f32, {n}),
                   control = o.of(std::vector<float>{1.0F, 1.0F}, {2});
  b.table.measure({.kernel = "adamw",
                   .shape = fmt::format("n={}", n),
                   .bytes = 28 * static_cast<double>(n),
                   .run = [&] {
                     ops::adamw(b.ctx, {.param = p,
                                        .m = m,
                                        .v = v,
                                        .grad = grad,
                                        .control = control,
                                        .lr = 1e-4F,
                                        .step = 10});
                   }});
}

void measure_sums(const Bench& b) {
  const std::int64_t n = b.sizes.flat;
  Operands o(b.ctx);
  const TensorView x = o.normals(DType::f32, {n});
  const std::string text = fmt::format("n={}", n);
  const auto bytes = 4 * static_cast<double>(n);
  const TensorView one = o.empty(DType::f64, {1});
  std::vector<std::int64_t> chunks;  // of a model of many small tensors
  constexpr std::int64_t kSmall = 4096;
  for (std::int64_t i = 0; i < n; i += kSmall)
    for (const std::int64_t v :
         {reinterpret_cast<std::int64_t>(x.as<float>() + i), std::min(kSmall, n - i)})
      chunks.push_back(v);
  const auto many = static_cast<std::int64_t>(chunks.size() / 2);
  const TensorView list = o.of(chunks, {many, 2}), sums = o.empty(DType::f64, {many});
  b.table.measure({.kernel = "squared_sums",
                   .shape = fmt::format("n={} C={}", n, many),
                   .bytes = bytes,
                   .run = [&] { ops::squared_sums(b.ctx, {.partials = sums, .chunks = list}); }});
  b.table.measure({.kernel = "tree_sum",
                   .shape = fmt::format("n={}", many),
                   .bytes = 8 * static_cast<double>(many),
                   .run = [&] { ops::tree_sum(b.ctx, {.sum = one, .partials = sums}); }});
  b.table.measure({.kernel = "sum", .shape = text, .bytes = bytes, .run = [&] {
                     ops::sum(b.ctx, {.sum = one, .x = x});
                   }});
}

void measure_simple(const Bench& b) {
  const std::int64_t n = b.sizes.flat, P = 8;
  Operands o(b.ctx);
  const TensorView y = o.zeros(DType::f32, {n}), x = o.normals(DType::f32, {n});
  const std::string text = fmt::format("n={}", n);
  const auto count = static_cast<double>(n);
  b.table.measure({.kernel = "add", .shape = text, .bytes = 12 * count, .run = [&] {
                     ops::add(b.ctx, {.y = y, .x = x});
                   }});
  b.table.measure({.kernel = "fill", .shape = text, .bytes = 4 * count, .run = [&] {
                     ops::fill(b.ctx, {.x = y, .value = 1.0F});
                   }});
  const std::int64_t part = n / P;
  b.table.measure({.kernel = "tree_add",
                   .shape = fmt::format("P={} n={}", P, part),
                   .bytes = 4 * static_cast<double>((P + 1) * part),
                   .run = [&] {
                     ops::tree_add(b.ctx, {.sum = rows(y, 0, part),
                                           .parts = reshape(rows(x, 0, P * part), {P, part})});
                   }});
  const ops::WeightView w{.data = static_cast<std::byte*>(y.data),
                          .device = Device::cuda,
                          .dtype = DType::bf16,
                          .shape = {1, n}};
  b.table.measure({.kernel = "refresh_weight", .shape = text, .bytes = 6 * count, .run = [&] {
                     ops::refresh_weight(b.ctx, {.out = w, .master = reshape(x, {1, n})});
                   }});
}

}  // namespace

void measure_flat(const Bench& b) {
  if (b.table.wants({"adamw"})) measure_adamw(b);
  if (b.table.wants({"squared_sums", "tree_sum", "sum"})) measure_sums(b);
  if (b.table.wants({"add", "fill", "tree_add", "refresh_weight"})) measure_simple(b);
}

}  // namespace grist::bench
