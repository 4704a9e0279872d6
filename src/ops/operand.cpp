#include "operand.h"

#include <array>

#include "grist/core/device.h"
#include "grist/ops/weight.h"

namespace grist::ops {

void require(const char* op, const char* operand, const ConstTensorView& v, DType dtype,
             const Shape& shape) {
  if (v.dtype != dtype || !(v.shape == shape)) {
    fail(ExitCode::internal, "{}: {} is {} {}, want {} {}", op, operand, v.shape.str(),
         name_of(v.dtype), shape.str(), name_of(dtype));
  }
  if (v.data == nullptr && shape.numel() > 0)
    fail(ExitCode::internal, "{}: {} has no data", op, operand);
}

void require_if_given(const char* op, const char* operand, const ConstTensorView& v, DType dtype,
                      const Shape& shape) {
  if (v.data != nullptr) require(op, operand, v, dtype, shape);
}

void require_rank(const char* op, const char* operand, const ConstTensorView& v, int rank) {
  if (v.shape.rank() != rank)
    fail(ExitCode::internal, "{}: {} is {}, want {} dims", op, operand, v.shape.str(), rank);
}

DType require_activation(const char* op, const char* operand, const Context& ctx,
                         const ConstTensorView& v) {
  if (v.dtype == DType::f32) return v.dtype;
  const bool bf16 = properties(ctx.device).bf16;
  if (v.dtype != DType::bf16 || !bf16)
    fail(ExitCode::internal, "{}: {} is {}, want f32{}", op, operand, name_of(v.dtype),
         bf16 ? " or bf16" : "");
  return v.dtype;
}

void require_weight(const char* op, const WeightView& w, Device device, DType dtype,
                    const Shape& shape) {
  if (!(w.shape == shape))
    fail(ExitCode::internal, "{}: weight is {}, want {}", op, w.shape.str(), shape.str());
  if (w.dtype != dtype)
    fail(ExitCode::internal, "{}: weight is {}, want {}", op, name_of(w.dtype), name_of(dtype));
  if (w.device != device) fail(ExitCode::internal, "{}: the weight belongs to another backend", op);
  if (w.data == nullptr && shape.numel() > 0)
    fail(ExitCode::internal, "{}: the weight has no data", op);
}

void require_scratch(const char* op, const Context& ctx) {
  if (ctx.scratch == nullptr) fail(ExitCode::internal, "{}: Context::scratch is missing", op);
}

namespace {
using Table = std::array<const Backend*, kMostDevices>;

// Made at its first use, which may be before main.
Table& table() {
  static Table backends = {&cpu::backend()};
  return backends;
}
}  // namespace

const Backend& backend(Device device) {
  const Backend* found = table().at(static_cast<std::size_t>(device));
  if (found == nullptr)
    fail(ExitCode::device_unavailable,
         "nothing in this program computes on device {}; use device: cpu", name_of(device));
  return *found;
}

void register_backend(Device device, const Backend* backend) {
  table().at(static_cast<std::size_t>(device)) = backend;
}

}  // namespace grist::ops
