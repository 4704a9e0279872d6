#pragma once
// Weights as matrix multiplication wants them. The fp32 master value of a matrix [out, in] is the
// truth; a WeightView is the backend's own copy of it (CPU: packed fp32 panels for both directions
// of use; CUDA: bf16), opaque, refreshed once per optimizer step.
#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist::ops {

struct WeightView {
  std::byte* data =
      nullptr;  // weight_bytes(device, dtype, shape) bytes, 64-byte aligned; owned by the caller
  Device device = Device::cpu;  // which backend's layout
  DType dtype = DType::f32;
  Shape shape;  // logical: (out, in), or (E, out, in) for experts
  explicit operator bool() const { return data != nullptr; }
};

std::size_t weight_bytes(Device device, DType dtype, const Shape& shape);

struct RefreshWeight {
  WeightView out;          // out
  ConstTensorView master;  // in  f32, the logical shape, row-major
};
void refresh_weight(const Context& ctx, const RefreshWeight& a);

}  // namespace grist::ops
