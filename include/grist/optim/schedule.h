#pragma once
// The learning rate as a function of the step alone: nothing is stored, so a resumed run needs only
// its step. The curve is Megatron's. (The batch-size ramp is config/batch_ramp.h.)
#include <cstdint>

#include "grist/config/config.h"

namespace grist {

// The rate of optimizer step `step`, counted from 1. With W = lr_warmup_iters, T = lr_decay_iters
// (0: train_iters), x = (step - W) / (T - W):
//   step <= W      lr * step / W             (from 0; step W has the peak)
//   constant       lr
//   step > T       min_lr
//   linear         min_lr + (lr - min_lr) * (1 - x)
//   cosine         min_lr + (lr - min_lr) * (1 + cos(pi x)) / 2
//   wsd            lr until step T - lr_wsd_decay_iters, then linear to min_lr at step T
// Megatron evaluates the same curve at step - 1, so its first update under a warm-up has rate 0;
// ours has lr / W, and the last of T steps has exactly min_lr. Throws Error{config} for an unknown
// lr_decay_style.
double learning_rate(const OptimConfig& optim, std::int64_t step, std::int64_t train_iters);

}  // namespace grist
