#include "grist/ops/weight.h"

#include "operand.h"

namespace grist::ops {

namespace {
void require_matrix(const char* op, DType dtype, const Shape& shape) {
  if (shape.rank() != 2 && shape.rank() != 3) {
    fail(ExitCode::internal, "{}: weight is {}, want (out, in) or (E, out, in)", op, shape.str());
  }
  if (dtype != DType::f32)
    fail(ExitCode::internal, "{}: weight is {}, want f32 on the CPU", op, name_of(dtype));
}
}  // namespace

std::size_t weight_bytes(Device device, DType dtype, const Shape& shape) {
  if (device == Device::cuda) no_cuda("weight_bytes");
  require_matrix("weight_bytes", dtype, shape);
  return cpu::weight_bytes(dtype, shape);
}

void refresh_weight(const Context& ctx, const RefreshWeight& a) {
  require_matrix("refresh_weight", a.out.dtype, a.out.shape);
  require_weight("refresh_weight", a.out, ctx.device, a.master.shape);
  require("refresh_weight", "master", a.master, DType::f32, a.out.shape);
  if (a.master.numel() == 0) return;
  GRIST_DISPATCH(refresh_weight, ctx, a);
}

}  // namespace grist::ops
