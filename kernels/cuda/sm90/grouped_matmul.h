#pragma once
// Grouped matmuls for Hopper (sm_90a): TMA, mbarriers and wgmma, bf16 with fp32 accumulation. The
// same arithmetic as ops/experts.h and ops/linear.h; each function does it and returns true, or
// does nothing and returns false where it has no kernel: other devices, dtypes other than bf16,
// widths that are not multiples of 8, tensors that are not 16-byte aligned.
#include "grist/core/context.h"
#include "grist/ops/experts.h"
#include "grist/ops/linear.h"

namespace grist::cuda::sm90 {

bool expert_up_forward(const Context& ctx, const ops::ExpertUpForward& a);
bool expert_down_forward(const Context& ctx, const ops::ExpertDownForward& a);
bool expert_down_backward(const Context& ctx, const ops::ExpertDownBackward& a);
bool expert_up_backward(const Context& ctx, const ops::ExpertUpBackward& a);
bool expert_weight_gradient(const Context& ctx, const ops::ExpertWeightGradient& a);

// One expert that has all rows. No accumulation into dx.
bool linear_forward(const Context& ctx, const ops::LinearForward& a);
bool linear_backward_input(const Context& ctx, const ops::LinearBackwardInput& a);
bool linear_backward_weight(const Context& ctx, const ops::LinearBackwardWeight& a);

}  // namespace grist::cuda::sm90
