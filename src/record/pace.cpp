#include "grist/record/pace.h"

#include <algorithm>

#include "grist/core/log.h"

namespace grist::record {

void Pace::start(std::int64_t step, std::int64_t tokens, Clock::time_point now) {
  step_ = step;
  tokens_ = tokens;
  since_ = now;
}

void Pace::fill(StepRecord& r, std::int64_t train_iters, Clock::time_point now) {
  r.seconds = std::chrono::duration<double>(now - since_).count();
  r.tokens_per_second = static_cast<double>(r.tokens - tokens_) / r.seconds;
  r.flops_per_second = r.tokens_per_second * flops_per_token_;
  const auto steps = static_cast<double>(r.step - step_);
  r.eta_seconds = r.seconds / steps * static_cast<double>(train_iters - r.step);
  if (peak_flops_ > 0 && r.flops_per_second > peak_flops_) {
    if (!raised_)
      log::info(
          "step {}: faster than the peak that was measured at the start ({:.0f} GFLOP/s, on a busy "
          "machine perhaps); from here on the fastest steps are the peak",
          r.step, peak_flops_ / 1e9);
    raised_ = true;
    peak_flops_ = r.flops_per_second;
  }
  r.peak_fraction = peak_flops_ > 0 ? r.flops_per_second / peak_flops_ : 0;
  start(r.step, r.tokens, now);
}

}  // namespace grist::record
