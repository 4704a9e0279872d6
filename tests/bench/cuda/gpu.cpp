#include "gpu.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>

#include "grist/core/error.h"
#include "grist/core/json.h"
#include "grist/core/random.h"
#include "kernels/cuda/launch.h"

namespace grist::bench {

namespace {

constexpr std::int64_t kBlock = 1 << 20;

// Normal numbers as they lie in memory.
template <class T> const std::vector<T>& block();
template <> const std::vector<float>& block() {
  static const std::vector<float> values = [] {
    const Random random(1, "benchmark");
    std::vector<float> x(kBlock);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = random.normal(i);
    return x;
  }();
  return values;
}
template <> const std::vector<Bf16>& block() {
  static const std::vector<Bf16> values = [] {
    std::vector<Bf16> x;
    for (const float v : block<float>()) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, &v, sizeof bits);
      x.push_back({static_cast<std::uint16_t>(bits >> 16)});
    }
    return x;
  }();
  return values;
}

class Event {
 public:
  Event() { cuda::check(cudaEventCreate(&event_), "event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t s) { cuda::check(cudaEventRecord(event_, s), "event"); }
  double seconds_since(const Event& begin) const {
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, begin.event_, event_), "event");
    return static_cast<double>(ms) * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

double median(std::vector<double> x) {
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  return *middle;
}

}  // namespace

TensorView Operands::empty(DType dtype, const Shape& shape) {
  keep_.emplace_back(static_cast<std::size_t>(shape.numel()) * size_of(dtype), Device::cuda,
                     "benchmark");
  return keep_.back().view(dtype, shape);
}

TensorView Operands::normals(DType dtype, const Shape& shape) {
  const TensorView v = empty(dtype, shape);
  const TensorView flat = reshape(v, {shape.numel()});
  const std::int64_t n = shape.numel();
  const std::int64_t first = std::min(kBlock, n);
  const void* values = dtype == DType::bf16 ? static_cast<const void*>(block<Bf16>().data())
                                            : static_cast<const void*>(block<float>().data());
  copy_in(ctx_, rows(flat, 0, first), values);
  for (std::int64_t done = first; done < n; done *= 2) {  // what is there, again
    const std::int64_t more = std::min(done, n - done);
    copy(ctx_, rows(flat, done, done + more), rows(flat, 0, more));
  }
  return v;
}

TensorView Operands::zeros(DType dtype, const Shape& shape) {
  const TensorView v = empty(dtype, shape);
  runtime(Device::cuda).clear(ctx_.stream, v.data, v.bytes());
  return v;
}

ops::WeightView Operands::weight(const Shape& shape, DType dtype) {
  return {.data = static_cast<std::byte*>(normals(dtype, shape).data),
          .device = Device::cuda,
          .dtype = dtype,
          .shape = shape};
}

std::vector<double> measure(const Context& ctx, const std::vector<std::function<void()>>& runs,
                            const Effort& effort) {
  const cudaStream_t stream = cuda::stream_of(ctx);
  const Buffer flush(effort.flush_bytes, Device::cuda, "L2 flush");
  using Clock = std::chrono::steady_clock;
  for (const auto& run : runs) {
    const auto begin = Clock::now();
    do {
      run();
      wait(ctx);
    } while (std::chrono::duration<double>(Clock::now() - begin).count() < effort.warm_seconds);
  }
  // Everything is enqueued before anything is waited for: the GPU never waits for the host.
  const std::size_t count = runs.size();
  std::vector<Event> begins(static_cast<std::size_t>(effort.rounds) * count), ends(begins.size());
  for (std::size_t i = 0; i < begins.size(); ++i) {
    cuda::check(cudaMemsetAsync(flush.data(), static_cast<int>(i), flush.size(), stream), "flush");
    begins[i].record(stream);
    runs[i % count]();
    ends[i].record(stream);
  }
  wait(ctx);
  std::vector<double> medians;
  for (std::size_t k = 0; k < count; ++k) {
    std::vector<double> seconds;
    for (std::size_t i = k; i < begins.size(); i += count)
      seconds.push_back(ends[i].seconds_since(begins[i]));
    medians.push_back(median(std::move(seconds)));
  }
  return medians;
}

bool Table::wants(std::initializer_list<std::string_view> kernels) const {
  return std::any_of(kernels.begin(), kernels.end(), [&](std::string_view kernel) {
    return kernel.find(filter_) != std::string_view::npos;
  });
}

void Table::measure_ceilings(Operands& operands, const Way& multiply, const std::string& shape,
                             double flops) {
  const auto bytes = static_cast<std::int64_t>(8 * effort_.flush_bytes);
  const TensorView from = operands.normals(DType::f32, {bytes / 4});
  const TensorView to = operands.empty(DType::f32, from.shape);
  const auto seconds = bench::measure(
      ctx_,
      {[&] { runtime(Device::cuda).copy(ctx_.stream, to.data, from.data, from.bytes()); },
       multiply.run},
      effort_);
  copy_rate_ = 2.0 * static_cast<double>(bytes) / seconds[0];
  dense_rate_ = flops / seconds[1];
  fmt::print("{}\ncopy {:.0f} GB/s (read and written), dense bf16 {} {} {:.0f} TFLOP/s\n\n",
             runtime(Device::cuda).describe(), copy_rate_ * 1e-9, multiply.name, shape,
             dense_rate_ * 1e-12);
  fmt::print("{:24} {:46} {:>9} {:>14} {:>9}  {}\n", "kernel", "shape", "ms", "rate", "roofline",
             "times as fast as");
  if (json_ == nullptr) return;
  fmt::print(json_,
             R"({{"kernel": "ceiling_copy", "shape": "n={}", "ms": {}, "gbps": {}}})"
             "\n",
             bytes / 4, seconds[0] * 1e3, copy_rate_ * 1e-9);
  fmt::print(json_,
             R"({{"kernel": "ceiling_bf16", "shape": "{}", "ms": {}, "tflops": {}}})"
             "\n",
             shape, seconds[1] * 1e3, dense_rate_ * 1e-12);
}

void Table::measure(const Case& c) {
  if (!wants({c.kernel})) return;
  std::vector<std::function<void()>> runs = {c.run};
  for (const Way& way : c.alternatives) runs.push_back(way.run);
  try {
    write(c, bench::measure(ctx_, runs, effort_));
  } catch (const Error& e) {  // one kernel's trouble is not the others'
    fmt::print("{:24} {:46} FAILED: {}\n", c.kernel, c.shape, e.what());
    ++failures_;
  }
  std::fflush(stdout);
}

void Table::write(const Case& c, const std::vector<double>& seconds) {
  const double by_flops = c.flops / dense_rate_, by_bytes = c.bytes / copy_rate_;
  const bool arithmetic = by_flops > by_bytes;
  const double share = std::max(by_flops, by_bytes) / seconds[0];
  const double rate = arithmetic ? c.flops / seconds[0] * 1e-12 : c.bytes / seconds[0] * 1e-9;
  Json line = Json::object();
  line.set("kernel", c.kernel);
  line.set("shape", c.shape);
  line.set("dtype", "bf16");
  line.set("ms", seconds[0] * 1e3);
  line.set("tflops", arithmetic ? Json(rate) : Json());
  line.set("gbps", arithmetic ? Json() : Json(rate));
  line.set("roofline_share", share);
  std::string against;
  if (!c.alternatives.empty()) {
    const auto best = std::min_element(seconds.begin() + 1, seconds.end());
    const Way& way = c.alternatives[static_cast<std::size_t>(best - seconds.begin() - 1)];
    line.set("alternative", way.name);
    line.set("alternative_ms", *best * 1e3);
    against = fmt::format("{:.2f}  {}", *best / seconds[0], way.name);
  }
  fmt::print("{:24} {:46} {:9.4f} {:6.0f} {:7} {:8.0f}%  {}\n", c.kernel, c.shape, seconds[0] * 1e3,
             rate, arithmetic ? "TFLOP/s" : "GB/s", share * 100, against);
  if (json_ == nullptr) return;
  fmt::print(json_, "{}\n", line.dump());
  std::fflush(json_);
}

}  // namespace grist::bench
