// AdamW and the reductions around it, CPU.
//
// Shapes    flat f32 vectors of any length; partial sums f64.
// Launch    element-wise: 16 Ki elements a task; sums: a chunk of kNormChunk a task, the tree over
//           them by one thread.
// Numerics  element-wise work is the same for every element wherever chunks fall. A sum over a
//           chunk keeps kLanes double sums (element i belongs to lane i mod kLanes), added by a
//           tree, so its bits depend on the chunk alone; chunks are kNormChunk elements.
// Traffic   AdamW: 4 reads and 3 writes of 4 bytes an element; sums read every element once.
// See       kernels/cuda/optimizer.cu, kernels/cuda/sums.cu, test tests/ops/optimizer_test.cpp.
#include <algorithm>
#include <cmath>

#include "grist/core/fixed_sum.h"
#include "grist/core/memory.h"
#include "grist/core/random.h"
#include "grist/ops/optimizer.h"
#include "kernels/adam_step.h"
#include "kernels/backends.h"

namespace grist::cpu {
namespace {

constexpr std::int64_t kTask = 16 * 1024;  // elements a task of element-wise work
constexpr int kLanes = 16;

// body(begin, end) over [0, n) in tasks.
template <class Body> void for_ranges(const Context& ctx, std::int64_t n, const Body& body) {
  parallel_for(ctx, (n + kTask - 1) / kTask, [&](std::int64_t task, int /*worker*/) {
    body(task * kTask, std::min(n, (task + 1) * kTask));
  });
}

// One block of exactly `n` elements; plain pointers and a constant n let the compiler vectorise.
inline void update(float* __restrict p, float* __restrict m, float* __restrict v,
                   const float* __restrict grad, int n, float clip, AdamStep s) {
  for (int i = 0; i < n; ++i) {
    const float g = grad[i] * clip;
    const float m_new = s.beta1 * m[i] + s.rest1 * g;
    const float v_new = s.beta2 * v[i] + s.rest2 * (g * g);
    const float step = (m_new * s.correction1) / (std::sqrt(v_new * s.correction2) + s.eps);
    m[i] = m_new;
    v[i] = v_new;
    p[i] -= s.lr * (step + s.decay * p[i]);
  }
}

void update_range(const ops::AdamW& a, std::int64_t begin, std::int64_t end, const AdamStep& s) {
  const float clip = a.control.as<float>()[0];
  auto* p = a.param.as<float>();
  auto* m = a.m.as<float>();
  auto* v = a.v.as<float>();
  const auto* g = a.grad.as<float>();
  std::int64_t j = begin;
  for (; j + kLanes <= end; j += kLanes) update(p + j, m + j, v + j, g + j, kLanes, clip, s);
  update(p + j, m + j, v + j, g + j, static_cast<int>(end - j), clip, s);
}

void add_range(float* __restrict y, const float* __restrict x, std::int64_t n) {
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes)
    for (int i = 0; i < kLanes; ++i) y[j + i] += x[j + i];
  for (; j < n; ++j) y[j] += x[j];
}

constexpr std::int64_t kTreeBlock = 1024;  // elements whose whole tree is made at once

// out = tree over rows [first, first + count) of elements [0, n) of parts; out may be one of them
// when count is all.
void tree_block(float* out, const float* parts, std::int64_t stride, std::int64_t first,
                std::int64_t count, std::int64_t n) {
  if (count == 1) {
    std::copy_n(parts + first * stride, n, out);
    return;
  }
  std::int64_t left = 1;
  while (left * 2 < count) left *= 2;
  float a[kTreeBlock], b[kTreeBlock];
  const float* x = parts + first * stride;
  const float* y = parts + (first + left) * stride;
  if (left > 1) {
    tree_block(a, parts, stride, first, left, n);
    x = a;
  }
  if (count - left > 1) {
    tree_block(b, parts, stride, first + left, count - left, n);
    y = b;
  }
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i] + y[i];
}

// Sum of term(x[i]) over a chunk.
template <class Term> double chunk_sum(const float* x, std::int64_t n, const Term& term) {
  double lanes[kLanes] = {};
  std::int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes)
    for (int i = 0; i < kLanes; ++i) lanes[i] += term(static_cast<double>(x[j + i]));
  for (int i = 0; j + i < n; ++i) lanes[i] += term(static_cast<double>(x[j + i]));
  return tree_over_lanes(lanes);
}

template <class Term>
void chunk_sums(const Context& ctx, double* out, const float* x, std::int64_t n, const Term& term) {
  const std::int64_t chunks = (n + ops::kNormChunk - 1) / ops::kNormChunk;
  parallel_for(ctx, chunks, [&](std::int64_t c, int /*worker*/) {
    const std::int64_t begin = c * ops::kNormChunk;
    out[c] = chunk_sum(x + begin, std::min(ops::kNormChunk, n - begin), term);
  });
}

}  // namespace

void adamw(const Context& ctx, const ops::AdamW& a) {
  if (a.control.as<float>()[1] == 0.0F) return;
  const AdamStep s = adam_step(a);
  for_ranges(ctx, a.param.numel(),
             [&](std::int64_t begin, std::int64_t end) { update_range(a, begin, end, s); });
}

void squared_sums(const Context& ctx, const ops::SquaredSums& a) {
  auto* partials = a.partials.as<double>();
  const auto* chunks = a.chunks.as<std::int64_t>();
  parallel_for(ctx, a.partials.numel(), [&](std::int64_t c, int /*worker*/) {
    const auto* x = reinterpret_cast<const float*>(chunks[2 * c]);
    partials[c] = chunk_sum(x, chunks[2 * c + 1], [](double v) { return v * v; });
  });
}

void tree_sum(const Context& /*ctx*/, const ops::TreeSum& a) {
  a.sum.as<double>()[0] = balanced_sum(a.partials.as<double>(), a.partials.numel());
}

void sum(const Context& ctx, const ops::Sum& a) {
  const std::int64_t n = a.x.numel();
  const std::int64_t chunks = (n + ops::kNormChunk - 1) / ops::kNormChunk;
  const ScratchScope scope(ctx.scratch);
  auto* partials = ctx.scratch->allocate<double>(chunks);
  chunk_sums(ctx, partials, a.x.as<float>(), n, [](double v) { return v; });
  a.sum.as<double>()[0] = balanced_sum(partials, chunks);
}

void normal_init(const Context& ctx, const ops::NormalInit& a) {
  const Random random(a.seed, a.name);
  const std::int64_t columns = columns_of(a.shape);
  auto* x = a.x.as<float>();
  for_ranges(ctx, a.x.numel(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      x[i] = a.std * random.normal(static_cast<std::uint64_t>(place_in_tensor(a.part, columns, i)));
  });
}

void fill(const Context& ctx, const ops::Fill& a) {
  auto* x = a.x.as<float>();
  for_ranges(ctx, a.x.numel(),
             [&](std::int64_t begin, std::int64_t end) { std::fill(x + begin, x + end, a.value); });
}

void tree_add(const Context& ctx, const ops::TreeAdd& a) {
  auto* out = a.sum.as<float>();
  const auto* parts = a.parts.as<float>();
  const std::int64_t count = a.parts.shape[0], n = a.parts.shape[1];
  for_ranges(ctx, n, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end; at += kTreeBlock)
      tree_block(out + at, parts + at, n, 0, count, std::min(kTreeBlock, end - at));
  });
}

void add(const Context& ctx, const ops::Add& a) {
  auto* y = a.y.as<float>();
  const auto* x = a.x.as<float>();
  for_ranges(ctx, a.y.numel(), [&](std::int64_t begin, std::int64_t end) {
    add_range(y + begin, x + begin, end - begin);
  });
}

}  // namespace grist::cpu
