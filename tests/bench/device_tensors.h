#pragma once
// Operands of a benchmark on either device.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "bench/bench.h"
#include "grist/core/device.h"
#include "grist/ops/weight.h"

namespace grist::bench {

// Random tensors on either device; on a GPU activations and weights are bf16.
class DeviceTensors {
 public:
  explicit DeviceTensors(const Context& ctx) : ctx_(ctx) {}
  DType activations() const { return ctx_.device == Device::cpu ? DType::f32 : DType::bf16; }

  TensorView random(const Shape& shape, std::string_view name, DType dtype) {
    if (ctx_.device == Device::cpu) return random_tensor(keep_, shape, name);
    const TensorView v = make(dtype, shape);
    // Many times the same block: making gigabytes of random numbers would take longer than the
    // rest.
    constexpr std::int64_t kBlock = 1 << 22;
    std::vector<Buffer> host;
    const std::int64_t n = std::min(kBlock, shape.numel());
    auto* x = random_tensor(host, {n}, name).as<float>();
    auto* halves = reinterpret_cast<std::uint16_t*>(x);  // written behind what is read
    if (dtype == DType::bf16)
      for (std::int64_t i = 0; i < n; ++i) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, x + i, sizeof bits);
        halves[i] = static_cast<std::uint16_t>(bits >> 16);
      }
    const TensorView flat = {v.data, dtype, {shape.numel()}};
    for (std::int64_t i = 0; i < shape.numel(); i += n)
      copy_in(ctx_, rows(flat, i, std::min(i + n, shape.numel())), x);
    wait(ctx_);
    return v;
  }
  TensorView random(const Shape& shape, std::string_view name) {
    return random(shape, name, activations());
  }
  ops::WeightView weight(const Shape& shape, std::string_view name) {
    ops::WeightView w{.device = ctx_.device, .dtype = activations(), .shape = shape};
    const TensorView values = random(shape, name);
    if (ctx_.device == Device::cuda) {  // a plain matrix
      w.data = static_cast<std::byte*>(values.data);
      return w;
    }
    keep_.emplace_back(ops::weight_bytes(Device::cpu, DType::f32, shape), Device::cpu, "packed");
    w.data = keep_.back().data();
    ops::refresh_weight(ctx_, {.out = w, .master = values});
    return w;
  }
  ConstTensorView ints(const std::vector<std::int32_t>& values, const Shape& shape) {
    const TensorView v = make(DType::i32, shape);
    copy_in(ctx_, v, values.data());
    return v;
  }

 private:
  TensorView make(DType dtype, const Shape& shape) {
    keep_.emplace_back(static_cast<std::size_t>(shape.numel()) * size_of(dtype), ctx_.device,
                       "benchmark");
    return keep_.back().view(dtype, shape);
  }
  const Context& ctx_;
  std::vector<Buffer> keep_;
};

}  // namespace grist::bench
