#include "grist/optim/schedule.h"

#include <cmath>
#include <numbers>

#include "grist/core/check.h"

namespace grist {

double learning_rate(const OptimConfig& optim, std::int64_t step, std::int64_t train_iters) {
  GRIST_CHECK(step >= 1, "steps count from 1, asked for {}", step);
  const std::string& style = optim.lr_decay_style;
  if (style != "constant" && style != "linear" && style != "cosine" && style != "wsd") {
    fail(ExitCode::config,
         "optim.lr_decay_style: \"{}\" is not one of cosine, wsd, linear, constant", style);
  }
  const std::int64_t warmup = optim.lr_warmup_iters;
  if (step <= warmup) return optim.lr * static_cast<double>(step) / static_cast<double>(warmup);
  if (style == "constant") return optim.lr;
  const std::int64_t end = optim.lr_decay_iters > 0 ? optim.lr_decay_iters : train_iters;
  if (step > end) return optim.min_lr;

  const std::int64_t begin = style == "wsd" ? end - optim.lr_wsd_decay_iters : warmup;
  if (step <= begin) return optim.lr;
  // begin < step <= end, so the divisor is positive.
  const double x = static_cast<double>(step - begin) / static_cast<double>(end - begin);
  const double share = style == "cosine" ? 0.5 * (1.0 + std::cos(std::numbers::pi * x)) : 1.0 - x;
  return optim.min_lr + (optim.lr - optim.min_lr) * share;
}

}  // namespace grist
