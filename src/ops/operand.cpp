#include "operand.h"

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
  if (v.dtype != DType::f32 && !(v.dtype == DType::bf16 && ctx.device == Device::cuda))
    fail(ExitCode::internal, "{}: {} is {}, want f32{}", op, operand, name_of(v.dtype),
         ctx.device == Device::cuda ? " or bf16" : "");
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
const Backend* cuda = nullptr;
}  // namespace

const Backend* cuda_backend() {
  return cuda;
}

void set_cuda_backend(const Backend* backend) {
  cuda = backend;
}

const Backend& require_cuda(const char* op) {
  if (cuda == nullptr)
    fail(ExitCode::device_unavailable, "{}: this program has no CUDA backend; use device: cpu", op);
  return *cuda;
}

}  // namespace grist::ops
