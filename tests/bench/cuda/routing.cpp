// Routing: a few bytes a token, so the time is that of launches and of latency.
#include <fmt/core.h>

#include "cases.h"
#include "grist/ops/dispatch.h"
#include "grist/ops/router.h"

namespace grist::bench {

namespace {

// Routing of N tokens; the bytes of its largest operands.
struct Routing {
  Routing(const Bench& b, Operands& o)
      : N(b.sizes.N),
        E(b.sizes.E),
        K(b.sizes.K),
        R(N * K),
        logits(o.normals(DType::f32, {N, E})),
        ids(o.empty(DType::i32, {N, K})),
        weights(o.empty(DType::f32, {N, K})),
        offsets(o.empty(DType::i32, {E + 1})),
        row_token(o.empty(DType::i32, {R})),
        row_weight(o.empty(DType::f32, {R})),
        slot_row(o.empty(DType::i32, {N, K})),
        fractions(o.empty(DType::f32, {1, E})),
        text(fmt::format("N={} E={} K={}", N, E, K)),
        table(static_cast<double>(logits.bytes())),
        slots(static_cast<double>(ids.bytes())) {}
  std::int64_t N, E, K, R;
  TensorView logits, ids, weights, offsets, row_token, row_weight, slot_row, fractions;
  std::string text;
  double table, slots;
};

void measure_forward(const Bench& b, Operands& o, const Routing& r) {
  const auto forward = [&] {
    ops::router_forward(b.ctx,
                        {.ids = r.ids, .weights = r.weights, .logits = r.logits, .mode = {}});
  };
  b.table.measure({.kernel = "router_forward",
                   .shape = r.text,
                   .bytes = r.table + 2 * r.slots,
                   .run = forward});
  forward();
  const auto plan = [&] {
    ops::dispatch_plan(b.ctx, {.expert_offsets = r.offsets,
                               .row_token = r.row_token,
                               .row_weight = r.row_weight,
                               .slot_row = r.slot_row,
                               .ids = r.ids,
                               .weights = r.weights,
                               .num_experts = r.E});
  };
  b.table.measure({.kernel = "dispatch_plan", .shape = r.text, .bytes = 5 * r.slots, .run = plan});
  plan();
  const TensorView counts = o.empty(DType::i64, {1, r.E}), sums = o.empty(DType::f64, {1, r.E}),
                   scalars = o.empty(DType::f64, {3});
  const auto statistics = [&] {
    ops::router_statistics(b.ctx, {.counts = counts,
                                   .fractions = r.fractions,
                                   .prob_sums = sums,
                                   .scalars = scalars,
                                   .logits = r.logits,
                                   .ids = r.ids,
                                   .weights = r.weights,
                                   .mode = {}});
  };
  b.table.measure({.kernel = "router_statistics",
                   .shape = r.text,
                   .bytes = r.table + 2 * r.slots,
                   .run = statistics});
  statistics();
}

void measure_backward(const Bench& b, Operands& o, const Routing& r) {
  const TensorView dlogits = o.empty(DType::f32, {r.N, r.E});
  b.table.measure({.kernel = "router_backward",
                   .shape = r.text,
                   .bytes = 2 * r.table + 4 * r.slots,
                   .run = [&] {
                     ops::router_backward(b.ctx, {.dlogits = dlogits,
                                                  .logits = r.logits,
                                                  .ids = r.ids,
                                                  .weights = r.weights,
                                                  .drow_weight = r.row_weight,
                                                  .slot_row = r.slot_row,
                                                  .load_fraction = r.fractions,
                                                  .aux_scale = 0.01F,
                                                  .z_scale = 1e-3F,
                                                  .mode = {}});
                   }});
}

// Rows of eight ranks, the same number from each for each expert.
void measure_regroup(const Bench& b, Operands& o, const Routing& r) {
  constexpr std::int64_t S = 8;
  const std::vector<std::int32_t> each(static_cast<std::size_t>(S * r.E),
                                       static_cast<std::int32_t>(r.R / (S * r.E)));
  const TensorView counts = o.of(each, {S, r.E}), offsets = o.empty(DType::i32, {r.E * S + 1}),
                   received = o.empty(DType::i32, {r.R}), inverse = o.empty(DType::i32, {r.R});
  b.table.measure({.kernel = "regroup_plan",
                   .shape = fmt::format("S={} E={} R={}", S, r.E, r.R),
                   .bytes = 2 * r.slots,
                   .run = [&] {
                     ops::regroup_plan(b.ctx, {.expert_offsets = r.offsets,
                                               .source_offsets = offsets,
                                               .row_received = received,
                                               .received_row = inverse,
                                               .counts = counts});
                   }});
}

}  // namespace

void measure_routing(const Bench& b) {
  if (!b.table.wants({"router_forward", "dispatch_plan", "router_statistics", "router_backward",
                      "regroup_plan"}))
    return;
  Operands o(b.ctx);
  const Routing r(b, o);
  measure_forward(b, o, r);
  measure_backward(b, o, r);
  measure_regroup(b, o, r);
}

}  // namespace grist::bench
