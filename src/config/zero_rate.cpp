#include "grist/config/zero_rate.h"

#include <algorithm>

#include "grist/core/check.h"

namespace grist {

std::string zero_rate_problem(const OptimConfig& optim, std::int64_t done,
                              std::int64_t train_iters) {
  const std::int64_t first = std::max(done, optim.lr_decay_iters) + 1;
  if (optim.min_lr > 0 || optim.lr_decay_iters == 0 || first > train_iters ||
      optim.lr_decay_style == LrDecayStyle::constant)
    return "";
  return fmt::format(
      "{} and min_lr 0 leave steps {} to {} at learning rate 0; drop lr_decay_iters, which then "
      "follows the length of the run, or write min_lr",
      optim.lr_decay_iters, first, train_iters);
}

}  // namespace grist
