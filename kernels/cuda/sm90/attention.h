#pragma once
// Attention for Hopper (sm_90a): TMA, mbarriers and wgmma, bf16, heads of 64 and 128. The same
// arithmetic as ops/attention.h; what it does not take, the kernels for all GPUs do.
#include "tensor_map.h"

namespace grist::cuda::attention::hopper {

// Whether the kernels run here and take all of these tensors (rows, heads, Dh).
template <class... Views> bool takes(std::int64_t Dh, const Views&... views) {
  return (Dh == 64 || Dh == 128) && sm90::fit(views...) && ((views.shape[0] > 0) && ...);
}

}  // namespace grist::cuda::attention::hopper
