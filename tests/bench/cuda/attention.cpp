// Causal attention over documents of equal length.
#include "grist/ops/attention.h"

#include <fmt/core.h>

#include <cmath>

#include "cases.h"
#include "kernels/cuda/launch.h"

namespace grist::bench {

namespace {

// A measurement with, beside it, the kernels that other GPUs run.
void compare(const Bench& b, Case c) {
  if (cuda::device_info().compute_capability == 90) {
    c.alternatives = {{"mma.sync", [run = c.run] {
                         const int before = cuda::override_compute_capability(80);
                         run();
                         cuda::override_compute_capability(before);
                       }}};
  }
  b.table.measure(c);
}

void measure_heads(const Bench& b, std::int64_t Dh) {
  const Sizes& s = b.sizes;
  Operands o(b.ctx);
  const std::int64_t T = s.N / s.documents;
  std::vector<std::int32_t> ends;
  for (std::int64_t d = 0; d <= s.documents; ++d) ends.push_back(static_cast<std::int32_t>(d * T));
  constexpr DType A = DType::bf16;
  const Shape queries{s.N, s.H, Dh}, keys{s.N, s.Hkv, Dh};
  const TensorView q = o.normals(A, queries), k = o.normals(A, keys), v = o.normals(A, keys),
                   out = o.empty(A, queries), dout = o.normals(A, queries),
                   dq = o.empty(A, queries), dk = o.empty(A, keys), dv = o.empty(A, keys),
                   lse = o.empty(DType::f32, {s.N, s.H}), cu = o.of(ends, {s.documents + 1});
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(Dh)));
  const double pairs =
      static_cast<double>(s.documents) * static_cast<double>(T) * static_cast<double>(T + 1) / 2;
  const double product = 2 * pairs * static_cast<double>(s.H * Dh);  // of one of QK^T, PV, ...
  const double q_bytes = static_cast<double>(q.bytes()), k_bytes = static_cast<double>(k.bytes());
  const std::string text =
      fmt::format("S={} T={} H={} Hkv={} Dh={}", s.documents, T, s.H, s.Hkv, Dh);
  const auto forward = [&] {
    ops::attention_forward(b.ctx, {.o = out,
                                   .lse = lse,
                                   .q = q,
                                   .k = k,
                                   .v = v,
                                   .cu_seqlens_q = cu,
                                   .cu_seqlens_k = cu,
                                   .scale = scale});
  };
  compare(b, {.kernel = "attention_forward",
              .shape = text,
              .flops = 2 * product,
              .bytes = 2 * q_bytes + 2 * k_bytes,
              .run = forward});
  if (!b.table.wants({"attention_backward"})) return;
  forward();
  compare(b, {.kernel = "attention_backward",
              .shape = text,
              .flops = 5 * product,
              .bytes = 4 * q_bytes + 4 * k_bytes,
              .run = [&] {
                ops::attention_backward(b.ctx, {.dq = dq,
                                                .dk = dk,
                                                .dv = dv,
                                                .do_ = dout,
                                                .o = out,
                                                .lse = lse,
                                                .q = q,
                                                .k = k,
                                                .v = v,
                                                .cu_seqlens_q = cu,
                                                .cu_seqlens_k = cu,
                                                .scale = scale});
              }});
}

}  // namespace

void measure_attention(const Bench& b) {
  if (!b.table.wants({"attention_forward", "attention_backward"})) return;
  measure_heads(b, b.sizes.Dh);
  if (b.sizes.Dh != 64) measure_heads(b, 64);
}

}  // namespace grist::bench
