#include "grist/ops/weight.h"

#include "grist/core/device.h"
#include "operand.h"

namespace grist::ops {

namespace {
void require_matrix(const char* op, Device device, DType dtype, const Shape& shape) {
  if (shape.rank() != 2 && shape.rank() != 3) {
    fail(ExitCode::internal, "{}: weight is {}, want (out, in) or (E, out, in)", op, shape.str());
  }
  const bool bf16 = properties(device).bf16;
  if (dtype != DType::f32 && !(bf16 && dtype == DType::bf16))
    fail(ExitCode::internal, "{}: weight is {}, want f32{}", op, name_of(dtype),
         bf16 ? " or bf16" : fmt::format(" on device {}", name_of(device)));
}
}  // namespace

std::size_t weight_bytes(Device device, DType dtype, const Shape& shape) {
  require_matrix("weight_bytes", device, dtype, shape);
  return backend(device).weight_bytes(dtype, shape);
}

void refresh_weight(const Context& ctx, const RefreshWeight& a) {
  require_matrix("refresh_weight", ctx.device, a.out.dtype, a.out.shape);
  require_weight("refresh_weight", a.out, ctx.device, a.out.dtype, a.master.shape);
  require("refresh_weight", "master", a.master, DType::f32, a.out.shape);
  if (a.master.numel() == 0) return;
  GRIST_DISPATCH(refresh_weight, ctx, a);
}

}  // namespace grist::ops
