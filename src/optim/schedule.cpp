#include "grist/optim/schedule.h"

#include <cmath>
#include <numbers>

#include "grist/core/check.h"

namespace grist {

namespace {

// Of lr - min_lr, after the part x of the decay.
double share_left(LrDecayStyle style, double x) {
  switch (style) {
    case LrDecayStyle::cosine: return 0.5 * (1.0 + std::cos(std::numbers::pi * x));
    case LrDecayStyle::wsd:
    case LrDecayStyle::linear: return 1.0 - x;
    case LrDecayStyle::constant: return 1.0;
  }
  return 1.0;
}

}  // namespace

double learning_rate(const OptimConfig& optim, std::int64_t step, std::int64_t train_iters) {
  GRIST_CHECK(step >= 1, "steps count from 1, asked for {}", step);
  const std::int64_t warmup = optim.lr_warmup_iters;
  if (step <= warmup) return optim.lr * static_cast<double>(step) / static_cast<double>(warmup);
  if (optim.lr_decay_style == LrDecayStyle::constant) return optim.lr;
  const std::int64_t end = optim.lr_decay_iters > 0 ? optim.lr_decay_iters : train_iters;
  if (step > end) return optim.min_lr;

  const bool wsd = optim.lr_decay_style == LrDecayStyle::wsd;
  const std::int64_t begin = wsd ? end - optim.lr_wsd_decay_iters : warmup;
  if (step <= begin) return optim.lr;
  // begin < step <= end, so the divisor is positive.
  const double x = static_cast<double>(step - begin) / static_cast<double>(end - begin);
  return optim.min_lr + (optim.lr - optim.min_lr) * share_left(optim.lr_decay_style, x);
}

}  // namespace grist
