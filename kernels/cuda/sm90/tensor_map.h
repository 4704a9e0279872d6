#pragma once
// Descriptions of tensors for the TMA, made on the host and passed to kernels as parameters.
#include <cuda.h>

#include <cstdint>

#include "grist/core/tensor.h"
#include "kernels/cuda/launch.h"

namespace grist::cuda::sm90 {

// Whether the TMA and 16-byte loads can read a tensor: the only ones that the Hopper kernels take.
inline bool fits(const ConstTensorView& v) {
  return v.dtype == DType::bf16 && v.shape[v.shape.rank() - 1] % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0;
}

// Whether the Hopper kernels run here and take all of these tensors.
template <class... Views> bool fit(const Views&... views) {
  return device_info().compute_capability == 90 && (fits(views) && ...);
}

// A dense bf16 tensor of two or three dims, moved in boxes of (1,) `box_rows` rows of 64 elements,
// swizzled by 128 bytes in shared memory. It must fit. Throws
// Error{device_unavailable} where the driver has no such maps.
CUtensorMap swizzled_map(const void* data, const Shape& shape, int box_rows);

}  // namespace grist::cuda::sm90
