#include "peak.h"

#include <algorithm>
#include <chrono>

#include "grist/core/device.h"
#include "grist/core/memory.h"
#include "grist/ops/linear.h"
#include "grist/ops/optimizer.h"

namespace grist::train {

// The size grows until a product takes long enough to be a fair measure of the device.
double measure_peak(const Context& ctx, DType dtype) {
  using Clock = std::chrono::steady_clock;
  const bool many = properties(ctx.device).asynchronous;  // many processors want much work
  const std::int64_t first = many ? 64 : 96;
  const std::int64_t largest = many ? 8192 : 768;  // that of a CPU fits its caches
  const double enough = many ? 1e-3 : 5e-3;        // seconds
  double best_rate = 0;
  for (std::int64_t size = first;; size *= 2) {
    const Shape shape = {size, size};
    Arena arena("peak measurement", ctx.device, nullptr);
    const std::size_t master = arena.reserve(DType::f32, shape), x = arena.reserve(dtype, shape),
                      y = arena.reserve(dtype, shape);
    const std::size_t w = arena.reserve_bytes(ops::weight_bytes(ctx.device, dtype, shape));
    arena.commit();
    const TensorView values = arena.view(master, DType::f32, shape);
    ops::normal_init(ctx, {.x = reshape(values, {size * size}),
                           .part = whole_part(shape),
                           .shape = shape,
                           .name = "peak"});
    const auto weight = [&](std::size_t at) {
      return ops::WeightView{arena.buffer().data() + at, ctx.device, dtype, shape};
    };
    ops::refresh_weight(ctx, {.out = weight(w), .master = values});
    const TensorView input = dtype == DType::f32 ? values : arena.view(x, dtype, shape);
    if (dtype != DType::f32)  // on such devices a weight is a plain matrix
      ops::refresh_weight(ctx, {.out = weight(x), .master = values});
    double best = 1e9;
    const auto end = Clock::now() + std::chrono::milliseconds(60);  // a busy moment must not decide
    int products = 0;
    for (auto begin = Clock::now(); begin < end; begin = Clock::now()) {
      ops::linear_forward(ctx, {.y = arena.view(y, dtype, shape), .x = input, .w = weight(w)});
      wait(ctx);
      best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
      // The first product may load a library.
      if (++products >= 3 && best < enough && size < largest) break;
    }
    best_rate = std::max(best_rate, 2.0 * static_cast<double>(size * size * size) / best);
    if (best > enough || size == largest) return best_rate;
  }
}

}  // namespace grist::train
