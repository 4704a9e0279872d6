#pragma once
// Records as lines for people.
#include "grist/record/metrics.h"

namespace grist::record {

std::string console_line(const StepRecord& r, std::int64_t train_iters);
std::string console_line(const ValidationRecord& r);
std::string duration(double seconds);  // "2m05s"

}  // namespace grist::record
