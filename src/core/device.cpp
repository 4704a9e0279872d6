#include "grist/core/device.h"

#include <cstring>

#include "grist/core/check.h"

namespace grist {

namespace {
DeviceRuntime* cuda = nullptr;
EnableCuda offered = nullptr;
}  // namespace

void offer_cuda(EnableCuda enable) {
  offered = enable;
}

bool enable_cuda(int index, std::string& why) {
  if (cuda != nullptr) return true;
  if (offered != nullptr) return offered(index, why);
  why = "this build has no CUDA backend";
  return false;
}

DeviceRuntime* find_cuda_device() {
  return cuda;
}

void set_cuda_device(DeviceRuntime* runtime) {
  cuda = runtime;
}

DeviceRuntime& cuda_device() {
  if (cuda == nullptr)
    fail(ExitCode::device_unavailable, "this program has no CUDA device; use device: cpu");
  return *cuda;
}

void copy_in(const Context& ctx, const TensorView& to, const void* from) {
  if (to.bytes() == 0) return;
  if (ctx.device == Device::cuda) {
    cuda_device().copy_in(ctx.stream, to.data, from, to.bytes());
  } else {
    std::memcpy(to.data, from, to.bytes());
  }
}

void start_copy_out(const Context& ctx, void* to, const ConstTensorView& from) {
  if (from.bytes() == 0) return;
  if (ctx.device == Device::cuda) {
    cuda_device().copy_out(ctx.stream, to, from.data, from.bytes());
  } else {
    std::memcpy(to, from.data, from.bytes());
  }
}

void copy_out(const Context& ctx, void* to, const ConstTensorView& from) {
  start_copy_out(ctx, to, from);
  if (from.bytes() > 0) wait(ctx);
}

void copy(const Context& ctx, const TensorView& to, const ConstTensorView& from) {
  GRIST_CHECK(to.bytes() == from.bytes(), "copy of {} bytes into {}", from.bytes(), to.bytes());
  if (to.bytes() == 0) return;
  if (ctx.device == Device::cuda) {
    cuda_device().copy(ctx.stream, to.data, from.data, to.bytes());
  } else {
    std::memcpy(to.data, from.data, to.bytes());
  }
}

void wait(const Context& ctx) {
  if (ctx.device == Device::cuda) cuda_device().wait(ctx.stream);
}

}  // namespace grist
