#pragma once
// What a device can do at most: the rate that a step is compared with.
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::train {

// The best rate of our own matmul on a square problem, in FLOP/s.
double measure_peak(const Context& ctx, DType dtype);

}  // namespace grist::train
