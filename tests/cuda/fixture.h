#pragma once
// For tests of the CUDA backend. They run on a GPU where the program was built by nvcc, and else on
// the emulation (tests/cuda_emulation), there under several schedules: the order of threads and the
// moment when asynchronous copies arrive.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "grist/core/device.h"
#include "grist/core/memory.h"
#include "kernels/cuda/launch.h"
#include "support/compare.h"

namespace grist::test {

// One way in which the emulation orders what the program leaves open; on a GPU there is one.
struct Schedule {
  std::string name;
  int order = 0;  // 0 forward, 1 reverse, 2 random lanes, 3 random warps, 4 random priorities
  int async = 0;  // 0 eager, 1 lazy, 2 random
  unsigned seed = 0;
  bool deferred =
      false;  // work on streams is done when the host waits, in a random order of theirs
};
const std::vector<Schedule>& schedules();
void use(const Schedule& s);

// Runs `body` under every schedule; a failure names it.
template <class F> void for_each_schedule(F&& body) {
  for (const Schedule& s : schedules()) {
    SCOPED_TRACE("schedule " + s.name);
    use(s);
    body();
    if (::testing::Test::HasFatalFailure()) break;
  }
  use(schedules().front());
}

// A context on the device, with a stream and scratch of its own. Skip the test when !available().
class CudaContext {
 public:
  CudaContext()
      : scratch_(Device::cuda),
        stream_(Device::cuda),
        context_(Device::cuda, stream_.get(), &scratch_) {}
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;
  const Context& operator*() const { return context_; }

 private:
  Scratch scratch_;
  OwnStream stream_;
  Context context_;
};

// Calls cuda::enable() once; false: no device here, and why. The test program's main() ends then.
bool enable_cuda(std::string& why);

// While it lives, kernels are chosen as on a device of this compute capability.
class AsDevice {
 public:
  explicit AsDevice(int capability) : before_(cuda::override_compute_capability(capability)) {}
  ~AsDevice() { cuda::override_compute_capability(before_); }
  AsDevice(const AsDevice&) = delete;
  AsDevice& operator=(const AsDevice&) = delete;

 private:
  int before_;
};

// The nearest bf16, ties to even; and back.
inline Bf16 to_bf16(float x) {
  std::uint32_t u = 0;
  std::memcpy(&u, &x, sizeof u);
  if ((u & 0x7fffffffU) > 0x7f800000U) return {static_cast<std::uint16_t>((u >> 16) | 0x40U)};
  u += 0x7fffU + ((u >> 16) & 1U);
  return {static_cast<std::uint16_t>(u >> 16)};
}
inline float to_float(Bf16 x) {
  const std::uint32_t u = static_cast<std::uint32_t>(x.bits) << 16;
  float f = 0;
  std::memcpy(&f, &u, sizeof f);
  return f;
}
inline std::vector<float> rounded_to_bf16(std::vector<float> x) {
  for (float& v : x) v = to_float(to_bf16(v));
  return x;
}

// A tensor on the device made from host values; activations may be stored as bf16. Reading it back
// gives floats for both. A tensor made from a shape alone is filled with NaN (0xff bytes).
class OnDevice {
 public:
  OnDevice(const Context& ctx, DType dtype, const Shape& shape) : ctx_(ctx), shape_(shape) {
    make(dtype);
    cuda_device_fill();
  }
  // dtype f32 or bf16.
  OnDevice(const Context& ctx, const std::vector<float>& values, const Shape& shape,
           DType dtype = DType::f32)
      : ctx_(ctx), shape_(shape) {
    make(dtype);
    EXPECT_EQ(static_cast<std::int64_t>(values.size()), shape.numel());
    if (dtype == DType::bf16) {
      std::vector<Bf16> b;
      for (const float v : values) b.push_back(to_bf16(v));
      copy_in(ctx, view_, b.data());
    } else {
      copy_in(ctx, view_, values.data());
    }
  }
  template <class T>
  OnDevice(const Context& ctx, const std::vector<T>& values, const Shape& shape)
      : ctx_(ctx), shape_(shape) {
    make(dtype_of<T>());
    EXPECT_EQ(static_cast<std::int64_t>(values.size()), shape.numel());
    copy_in(ctx, view_, values.data());
  }
  operator TensorView() const { return view_; }         // NOLINT: used as one
  operator ConstTensorView() const { return {view_}; }  // NOLINT
  TensorView view() const { return view_; }
  template <class T> std::vector<T> host() const { return to_host<T>(ctx_, view_); }
  std::vector<float> floats() const {
    if (view_.dtype == DType::f32) return host<float>();
    std::vector<float> out;
    for (const Bf16 b : host<Bf16>()) out.push_back(to_float(b));
    return out;
  }

 private:
  void make(DType dtype) {
    buffer_ = Buffer(static_cast<std::size_t>(shape_.numel()) * size_of(dtype), Device::cuda,
                     "test tensor");
    view_ = buffer_.view(dtype, shape_);
  }
  void cuda_device_fill() {
    const std::vector<std::uint8_t> bytes(view_.bytes(), 0xff);
    copy_in(ctx_, view_, bytes.data());
  }
  const Context& ctx_;
  Shape shape_;
  Buffer buffer_;
  TensorView view_;
};

}  // namespace grist::test
