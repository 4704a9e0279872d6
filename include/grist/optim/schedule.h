#pragma once
// Learning rate and batch size as functions of progress alone: nothing is stored, so a resumed run
// needs only its step and its consumed samples. Both curves are Megatron's.
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

// Sequences in the step that starts after `consumed_samples` sequences. rampup_batch_size [start,
// increment, samples] raises the batch from start to global_batch_size in equal stages over the
// first `samples` sequences; empty: always global_batch_size. Throws Error{config} when the ramp is
// not three numbers, does not start at 1 or more and below global_batch_size, or its increment does
// not divide the difference.
std::int64_t global_batch_size_at(const TrainConfig& train, std::int64_t consumed_samples);

}  // namespace grist
