// Element-wise updates (ops/optimizer.h), CUDA. Reductions: sums.cu.
//
// Shapes    flat f32 vectors of any length.
// Launch    a thread one vector of 16 bytes of each operand (AdamW), or two (fill, add); what does
//           not fill a vector by single elements.
// Numerics  built with --fmad=false, in the order of kernels/cpu/optimizer.cpp: the CPU's bits.
//           Initial values are made by the CPU's code on the host.
// Traffic   AdamW: 4 reads and 3 writes of 4 bytes an element; add: 2 and 1; fill: 1 write.
// See       kernels/cpu/optimizer.cpp, test tests/cuda/optimizer_test.cpp.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "elementwise.cuh"
#include "grist/core/device.h"
#include "grist/ops/optimizer.h"
#include "kernels/adam_step.h"
#include "kernels/backends.h"

namespace grist::cuda {
namespace {

constexpr int kItems = 2;  // vectors of a thread, of each operand

struct AdamState {
  float* p;
  float* m;
  float* v;
  const float* grad;
  const float* control;  // clip factor; 1 to apply, 0 to skip
  std::int64_t n;
};

template <int W>
__global__ void __launch_bounds__(kBlockThreads) adamw_kernel(const AdamState a, const AdamStep s) {
  const std::int64_t i = item_of_thread<1>(0) * W;
  if (i >= a.n) return;
  float p[W], m[W], v[W], grad[W];
  load_floats(p, a.p + i);
  load_floats(m, a.m + i);
  load_floats(v, a.v + i);
  load_floats(grad, a.grad + i);
  const float clip = a.control[0];
  if (a.control[1] == 0.0F) return;
  for (int k = 0; k < W; ++k) {
    const float g = grad[k] * clip;
    m[k] = s.beta1 * m[k] + s.rest1 * g;
    v[k] = s.beta2 * v[k] + s.rest2 * (g * g);
    const float step = (m[k] * s.correction1) / (sqrtf(v[k] * s.correction2) + s.eps);
    p[k] -= s.lr * (step + s.decay * p[k]);
  }
  store_floats(a.p + i, p);
  store_floats(a.m + i, m);
  store_floats(a.v + i, v);
}

template <int W>
__global__ void __launch_bounds__(kBlockThreads)
    fill_kernel(float* x, float value, std::int64_t n) {
  float values[W];
  for (int k = 0; k < W; ++k) values[k] = value;
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t i = item_of_thread<kItems>(j) * W;
    if (i < n) store_floats(x + i, values);
  }
}

template <int W>
__global__ void __launch_bounds__(kBlockThreads)
    add_kernel(float* y, const float* x, std::int64_t n) {
  float a[kItems][W], b[kItems][W];
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t i = item_of_thread<kItems>(j) * W;
    if (i >= n) continue;
    load_floats(a[j], y + i);
    load_floats(b[j], x + i);
  }
#pragma unroll
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t i = item_of_thread<kItems>(j) * W;
    for (int k = 0; k < W; ++k) a[j][k] += b[j][k];
    if (i < n) store_floats(y + i, a[j]);
  }
}

}  // namespace

void adamw(const Context& ctx, const ops::AdamW& a) {
  const AdamStep step = adam_step(a);
  const AdamState all{.p = a.param.as<float>(),
                      .m = a.m.as<float>(),
                      .v = a.v.as<float>(),
                      .grad = a.grad.as<float>(),
                      .control = a.control.as<float>(),
                      .n = a.param.numel()};
  for_flat<float>(all.n, {all.p, all.m, all.v, all.grad}, [&](auto width, auto begin, auto n) {
    constexpr int W = decltype(width)::value;
    const AdamState part{.p = all.p + begin,
                         .m = all.m + begin,
                         .v = all.v + begin,
                         .grad = all.grad + begin,
                         .control = all.control,
                         .n = n};
    launch(adamw_kernel<W>, blocks_for_items<1>(n / W), kBlockThreads, 0, stream_of(ctx), part,
           step);
  });
}

void fill(const Context& ctx, const ops::Fill& a) {
  auto* x = a.x.as<float>();
  for_flat<float>(a.x.numel(), {x}, [&](auto width, auto begin, auto n) {
    constexpr int W = decltype(width)::value;
    launch(fill_kernel<W>, blocks_for_items<kItems>(n / W), kBlockThreads, 0, stream_of(ctx),
           x + begin, a.value, n);
  });
}

void add(const Context& ctx, const ops::Add& a) {
  auto* y = a.y.as<float>();
  const auto* x = a.x.as<float>();
  for_flat<float>(a.y.numel(), {y, x}, [&](auto width, auto begin, auto n) {
    constexpr int W = decltype(width)::value;
    launch(add_kernel<W>, blocks_for_items<kItems>(n / W), kBlockThreads, 0, stream_of(ctx),
           y + begin, x + begin, n);
  });
}

// On the host, by the CPU's code: its logarithms and cosines to the bit. Once, at start.
void normal_init(const Context& ctx, const ops::NormalInit& a) {
  constexpr std::int64_t kPiece = 4 * 1024 * 1024;
  const std::int64_t n = a.x.numel();
  std::vector<float> piece(static_cast<std::size_t>(std::min(n, kPiece)));
  std::unique_ptr<ThreadPool> threads;  // a small tensor is not worth starting them
  Context host(ctx.pool);
  if (host.pool == nullptr && n > 64 * 1024) {
    threads = std::make_unique<ThreadPool>(0);
    host.pool = threads.get();
  }
  for (std::int64_t begin = 0; begin < n; begin += kPiece) {
    const std::int64_t end = std::min(n, begin + kPiece);
    cpu::normal_init(host, {.x = {piece.data(), DType::f32, {end - begin}},
                            .part = a.part.sub(begin, end),
                            .shape = a.shape,
                            .std = a.std,
                            .seed = a.seed,
                            .name = a.name});
    copy_in(ctx, rows(a.x, begin, end), piece.data());
  }
}

}  // namespace grist::cuda
