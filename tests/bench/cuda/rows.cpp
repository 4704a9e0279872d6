// Operations that read and write rows of activations once.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "cases.h"
#include "grist/core/random.h"
#include "grist/ops/dispatch.h"
#include "grist/ops/embedding.h"
#include "grist/ops/norm.h"
#include "grist/ops/rope.h"
#include "grist/ops/swiglu.h"

namespace grist::bench {

namespace {

constexpr DType A = DType::bf16;
constexpr double kActivation = 2;  // bytes

std::vector<std::int32_t> below(std::int64_t n, std::int64_t bound, const char* name) {
  const Random random(1, name);
  std::vector<std::int32_t> x;
  for (std::int64_t i = 0; i < n; ++i)
    x.push_back(static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound))));
  return x;
}

void measure_norm(const Bench& b, std::int64_t N, std::int64_t D, bool residual) {
  Operands o(b.ctx);
  const Shape shape{N, D};
  const TensorView x = o.normals(A, shape), add = o.normals(A, shape), y = o.empty(A, shape),
                   h = o.empty(A, shape), w = o.normals(DType::f32, {D}),
                   dw = o.zeros(DType::f32, {D}), rstd = o.empty(DType::f32, {N});
  const auto given = [&](const TensorView& v) { return residual ? v : TensorView{}; };
  const ops::RmsNormForward forward{
      .y = y, .h = given(h), .rstd = rstd, .x = x, .residual = given(add), .w = w};
  const std::string text = fmt::format("N={} D={}{}", N, D, residual ? " residual" : "");
  const double bytes = kActivation * static_cast<double>(N * D);
  b.table.measure({.kernel = "rms_norm_forward",
                   .shape = text,
                   .bytes = bytes * (residual ? 4 : 2),
                   .run = [&] { ops::rms_norm_forward(b.ctx, forward); }});
  b.table.measure(
      {.kernel = "rms_norm_backward",
       .shape = text,
       .bytes = bytes * (residual ? 4 : 3),
       .run = [&] {
         ops::rms_norm_backward(
             b.ctx,
             {.dh = y, .dw = dw, .dy = add, .dresidual = given(x), .h = x, .rstd = rstd, .w = w});
       }});
}

void measure_rope(const Bench& b) {
  const Sizes& s = b.sizes;
  Operands o(b.ctx);
  const std::int64_t T = s.N / s.documents;
  const TensorView x = o.normals(A, {s.N, s.H, s.Dh}), table = o.empty(DType::f32, {T, s.Dh});
  std::vector<std::int32_t> positions;
  for (std::int64_t n = 0; n < s.N; ++n) positions.push_back(static_cast<std::int32_t>(n % T));
  const TensorView at = o.of(positions, {s.N});
  ops::rope_table(b.ctx, {.table = table, .theta = 1e4});
  b.table.measure({.kernel = "rope",
                   .shape = fmt::format("N={} H={} Dh={}", s.N, s.H, s.Dh),
                   .bytes = 2 * kActivation * static_cast<double>(x.numel()),
                   .run = [&] { ops::rope(b.ctx, {.x = x, .positions = at, .table = table}); }});
}

void measure_swiglu(const Bench& b) {
  const std::int64_t N = b.sizes.N, F = b.sizes.F;
  Operands o(b.ctx);
  const TensorView z = o.normals(A, {N, 2 * F}), dz = o.empty(A, {N, 2 * F}),
                   a = o.normals(A, {N, F});
  const std::string text = fmt::format("N={} F={}", N, F);
  const double bytes = kActivation * static_cast<double>(N * F);
  b.table.measure({.kernel = "swiglu_forward", .shape = text, .bytes = 3 * bytes, .run = [&] {
                     ops::swiglu_forward(b.ctx, {.a = a, .z = z});
                   }});
  b.table.measure({.kernel = "swiglu_backward", .shape = text, .bytes = 5 * bytes, .run = [&] {
                     ops::swiglu_backward(b.ctx, {.dz = dz, .da = a, .z = z});
                   }});
}

// Ids as in text: a few are frequent, most are rare.
std::vector<std::int32_t> zipf_ids(std::int64_t n, std::int64_t V) {
  const Random random(1, "ids");
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < n; ++i) {
    const double u = random.uniform(static_cast<std::uint64_t>(i));
    const double rank = std::pow(static_cast<double>(V), u) - 1;
    ids.push_back(static_cast<std::int32_t>(std::min(rank, static_cast<double>(V - 1))));
  }
  return ids;
}

void measure_embedding(const Bench& b) {
  const std::int64_t N = b.sizes.N, D = b.sizes.D, V = b.sizes.V;
  Operands o(b.ctx);
  const auto ids = zipf_ids(N, V);
  const auto distinct = static_cast<double>(std::set<std::int32_t>(ids.begin(), ids.end()).size());
  const TensorView table = o.normals(DType::f32, {V, D}), y = o.normals(A, {N, D}),
                   on_device = o.of(ids, {N});
  const std::string text = fmt::format("N={} V={} D={}", N, V, D);
  const auto width = static_cast<double>(D);
  const double rows = kActivation * static_cast<double>(N) * width;
  b.table.measure(
      {.kernel = "embedding_forward",
       .shape = text,
       .bytes = rows + 4 * distinct * width,
       .run = [&] { ops::embedding_forward(b.ctx, {.y = y, .table = table, .ids = on_device}); }});
  b.table.measure({.kernel = "embedding_backward",
                   .shape = text,
                   .bytes = rows + 8 * distinct * width,
                   .run = [&] {
                     ops::embedding_backward(b.ctx, {.dtable = table, .dy = y, .ids = on_device});
                   }});
}

void measure_gathers(const Bench& b) {
  const std::int64_t N = b.sizes.N, K = b.sizes.K, D = b.sizes.D, R = N * K;
  Operands o(b.ctx);
  const Permutation shuffled(static_cast<std::uint64_t>(R), 1, "slots");
  std::vector<std::int32_t> slots;
  for (std::int64_t i = 0; i < R; ++i)
    slots.push_back(static_cast<std::int32_t>(shuffled(static_cast<std::uint64_t>(i))));
  const TensorView all = o.normals(A, {R, D}), y = o.empty(A, {N, D}),
                   slot_row = o.of(slots, {N, K}), weights = o.normals(DType::f32, {N, K}),
                   index = o.of(below(R, N, "index"), {R});
  const double row_bytes = kActivation * static_cast<double>(D);
  b.table.measure({.kernel = "gather_sum",
                   .shape = fmt::format("N={} K={} D={}", N, K, D),
                   .bytes = row_bytes * static_cast<double>(R + N),
                   .run = [&] {
                     ops::gather_sum(
                         b.ctx, {.y = y, .rows = all, .slot_row = slot_row, .weights = weights});
                   }});
  b.table.measure({.kernel = "gather_rows",
                   .shape = fmt::format("R={} N={} D={}", R, N, D),
                   .bytes = row_bytes * static_cast<double>(R + R),
                   .run = [&] { ops::gather_rows(b.ctx, {.y = all, .x = y, .index = index}); }});
}

}  // namespace

void measure_rows(const Bench& b) {
  if (b.table.wants({"rms_norm_forward", "rms_norm_backward"})) {
    measure_norm(b, b.sizes.N, b.sizes.D, true);
    measure_norm(b, b.sizes.N * b.sizes.H, b.sizes.Dh, false);
  }
  if (b.table.wants({"rope"})) measure_rope(b);
  if (b.table.wants({"swiglu_forward", "swiglu_backward"})) measure_swiglu(b);
  if (b.table.wants({"embedding_forward", "embedding_backward"})) measure_embedding(b);
  if (b.table.wants({"gather_sum", "gather_rows"})) measure_gathers(b);
}

}  // namespace grist::bench
