// Output layer and cross entropy, CPU, in chunks of rows.
//
//   logits = x W^T;  lse = log(sum exp(logits - max)) + max;  loss = lse - logits[target];  z =
//   lse^2 dlogits = grad_scale * ((1 + 2 z_coeff lse) softmax(logits) - onehot(target)), over the
//   logits' memory dx = dlogits W;  dw += dlogits^T x
//
// Shapes    x, dx (N, D); w, dw (V, D); losses, targets (N); f32.
// Launch    chunks of 256 to 1024 rows, one after another; in each, a task has about 16 Ki logits.
// Numerics  fp32; a row's sum keeps sixteen lanes; the rest of a row's loss is in double. dw goes
//           on from chunk to chunk as one chain a value, so the chunk size changes no bit.
// Traffic   logits of a chunk (8 MiB where V allows) are written and read by three products and
//           twice by the loss.
// See       kernels/cuda/cross_entropy.cu, test tests/ops/cross_entropy_test.cpp.
#include <algorithm>
#include <cmath>

#include "grist/core/check.h"
#include "grist/core/memory.h"
#include "grist/ops/cross_entropy.h"
#include "grist/ops/linear.h"
#include "kernels/backends.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/vector_math.h"

namespace grist::cpu {
namespace {

// Rows a chunk: enough to use each packed weight often, few enough that the logits of
// a small vocabulary stay in cache.
constexpr std::int64_t kLogitBytes = 8 << 20;
constexpr std::int64_t kMinRows = 256;
constexpr std::int64_t kMaxRows = 1024;
constexpr std::int64_t kTaskFloats = 16 * 1024;  // logits a task

std::int64_t chunk_rows(std::int64_t N, std::int64_t V) {
  const std::int64_t rows = kLogitBytes / (V * static_cast<std::int64_t>(sizeof(float)));
  return std::min(N, std::clamp(rows / 64 * 64, kMinRows, kMaxRows));
}

struct RowLoss {
  float loss = 0.0F;
  float z = 0.0F;
};

// With grad_scale, the logits become dlogits; else what is left there means nothing.
RowLoss loss_row(float* logits, std::int64_t V, std::int32_t target, const float* grad_scale,
                 float z_coeff) {
  if (target < 0) {
    if (grad_scale != nullptr) std::fill_n(logits, V, 0.0F);
    return {};
  }
  const float largest = max_of(logits, V);
  const auto chosen = static_cast<double>(logits[target]);
  exp_minus(logits, logits, largest, V);
  const float total = sum_of(logits, V);
  const double log_total = std::log(static_cast<double>(total));
  const double lse = log_total + static_cast<double>(largest);
  if (grad_scale != nullptr) {
    const float z_factor = 1.0F + 2.0F * z_coeff * static_cast<float>(lse);
    scale_row(logits, *grad_scale / total * z_factor, V);
    logits[target] -= *grad_scale;
  }
  const double loss = log_total + (static_cast<double>(largest) - chosen);
  return {static_cast<float>(loss), static_cast<float>(lse * lse)};
}

}  // namespace

void linear_cross_entropy(const Context& ctx, const ops::LinearCrossEntropy& a) {
  const std::int64_t N = a.x.shape[0];
  const std::int64_t V = a.w.shape[0];
  const auto* targets = a.targets.as<std::int32_t>();
  auto* losses = a.losses.as<float>();
  auto* z = a.z ? a.z.as<float>() : nullptr;
  for (std::int64_t n = 0; n < N; ++n)
    GRIST_CHECK(targets[n] < V, "target {} of row {} is not in [0, {})", targets[n], n, V);
  const bool gradients = static_cast<bool>(a.dx);
  const float* grad_scale = gradients ? a.grad_scale.as<float>() : nullptr;
  if (N == 0) {
    if (a.dw && !a.accumulate) std::fill_n(a.dw.as<float>(), a.dw.numel(), 0.0F);
    return;
  }
  const ScratchScope scope(ctx.scratch);
  const std::int64_t chunk = chunk_rows(N, V);
  const TensorView memory = ctx.scratch->tensor(DType::f32, {chunk, V});
  const std::int64_t task_rows = std::max<std::int64_t>(1, kTaskFloats / V);
  for (std::int64_t begin = 0; begin < N; begin += chunk) {
    const std::int64_t count = std::min(chunk, N - begin);
    const TensorView logits = rows(memory, 0, count);
    const ConstTensorView x = rows(a.x, begin, begin + count);
    cpu::linear_forward(ctx, {.y = logits, .x = x, .w = a.w});
    auto* values = logits.as<float>();
    parallel_for(ctx, (count + task_rows - 1) / task_rows, [&](std::int64_t task, int) {
      const std::int64_t end = std::min(count, (task + 1) * task_rows);
      for (std::int64_t r = task * task_rows; r < end; ++r) {
        const RowLoss row = loss_row(values + r * V, V, targets[begin + r], grad_scale, a.z_coeff);
        losses[begin + r] = row.loss;
        if (z != nullptr) z[begin + r] = row.z;
      }
    });
    if (!gradients) continue;
    cpu::linear_backward_input(
        ctx, {.dx = rows(a.dx, begin, begin + count), .dy = logits, .w = a.w, .accumulate = false});
    cpu::linear_backward_weight(
        ctx, {.dw = a.dw, .dy = logits, .x = x, .accumulate = a.accumulate || begin > 0});
  }
}

}  // namespace grist::cpu
