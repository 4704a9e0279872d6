// Routing: a few bytes a token, so the time is that of launches and of latency.
#include <fmt/core.h>

#include "cases.h"
#include "grist/ops/dispatch.h"
#include "grist/ops/router.h"

namespace grist::bench {

void measure_routing(const Bench& b) {
  const Sizes& s = b.sizes;
  const std::int64_t N = s.N, E = s.E, K = s.K, R = N * K, S = 8;
  Operands o(b.ctx);
  const DType f32 = DType::f32, i32 = DType::i32, f64 = DType::f64;
  const TensorView logits = o.normals(f32, {N, E}), dlogits = o.empty(f32, {N, E}),
                   ids = o.empty(i32, {N, K}), weights = o.empty(f32, {N, K}),
                   offsets = o.empty(i32, {E + 1}), row_token = o.empty(i32, {R}),
                   row_weight = o.empty(f32, {R}), slot_row = o.empty(i32, {N, K}),
                   counts = o.empty(DType::i64, {1, E}), fractions = o.empty(f32, {1, E}),
                   prob_sums = o.empty(f64, {1, E}), scalars = o.empty(f64, {3});
  const std::string text = fmt::format("N={} E={} K={}", N, E, K);
  const double table = 4 * static_cast<double>(N * E), slots = 4 * static_cast<double>(R);
  b.table.measure(
      {.kernel = "router_forward", .shape = text, .bytes = table + 2 * slots, .run = [&] {
         ops::router_forward(b.ctx, {.ids = ids, .weights = weights, .logits = logits, .mode = {}});
       }});
  ops::router_forward(b.ctx, {.ids = ids, .weights = weights, .logits = logits, .mode = {}});
  const auto plan = [&] {
    ops::dispatch_plan(b.ctx, {.expert_offsets = offsets,
                               .row_token = row_token,
                               .row_weight = row_weight,
                               .slot_row = slot_row,
                               .ids = ids,
                               .weights = weights,
                               .num_experts = E});
  };
  b.table.measure({.kernel = "dispatch_plan", .shape = text, .bytes = 5 * slots, .run = plan});
  plan();
  const auto statistics = [&] {
    ops::router_statistics(b.ctx, {.counts = counts,
                                   .fractions = fractions,
                                   .prob_sums = prob_sums,
                                   .scalars = scalars,
                                   .logits = logits,
                                   .ids = ids,
                                   .weights = weights,
                                   .mode = {}});
  };
  b.table.measure({.kernel = "router_statistics",
                   .shape = text,
                   .bytes = table + 2 * slots,
                   .run = statistics});
  statistics();
  b.table.measure(
      {.kernel = "router_backward", .shape = text, .bytes = 2 * table + 4 * slots, .run = [&] {
         ops::router_backward(b.ctx, {.dlogits = dlogits,
                                      .logits = logits,
                                      .ids = ids,
                                      .weights = weights,
                                      .drow_weight = row_weight,
                                      .slot_row = slot_row,
                                      .load_fraction = fractions,
                                      .aux_scale = 0.01F,
                                      .z_scale = 1e-3F,
                                      .mode = {}});
       }});
  const std::vector<std::int32_t> each(static_cast<std::size_t>(S * E),
                                       static_cast<std::int32_t>(R / (S * E)));
  const TensorView sources = o.of(each, {S, E}), by_source = o.empty(i32, {E * S + 1}),
                   received = o.empty(i32, {R}), inverse = o.empty(i32, {R});
  b.table.measure({.kernel = "regroup_plan",
                   .shape = fmt::format("S={} E={} R={}", S, E, R),
                   .bytes = 2 * slots,
                   .run = [&] {
                     ops::regroup_plan(b.ctx, {.expert_offsets = offsets,
                                               .source_offsets = by_source,
                                               .row_received = received,
                                               .received_row = inverse,
                                               .counts = sources});
                   }});
}

}  // namespace grist::bench
