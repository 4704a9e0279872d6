#pragma once
// How fast a run is: between two logged steps, without what is no training.
#include <chrono>
#include <cstdint>

#include "grist/record/metrics.h"

namespace grist::record {

class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  // Of a token, forward and backward.
  explicit Pace(double flops_per_token) : flops_per_token_(flops_per_token) {}
  double flops_per_token() const { return flops_per_token_; }
  // What this machine can do at most, as measured. A run that is faster raises it.
  double peak_flops() const { return peak_flops_; }
  void set_peak_flops(double peak) { peak_flops_ = peak; }

  void start(std::int64_t step, std::int64_t tokens, Clock::time_point now);
  void leave_out(Clock::duration time) { since_ += time; }
  // The time fields of `r`, whose other fields are there; the next stretch begins.
  void fill(StepRecord& r, std::int64_t train_iters, Clock::time_point now);

 private:
  double flops_per_token_;
  double peak_flops_ = 0;
  bool raised_ = false;
  Clock::time_point since_;
  std::int64_t tokens_ = 0;
  std::int64_t step_ = 0;
};

}  // namespace grist::record
