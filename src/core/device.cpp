#include "grist/core/device.h"

#include <array>

#include "grist/core/check.h"
#include "host_runtime.h"

namespace grist {

namespace {

struct Entry {
  std::string name;
  DeviceRuntime* runtime = nullptr;
  EnableDevice enable = nullptr;
};

struct Registry {
  std::array<Entry, kMostDevices> entries;
  std::size_t count = 2;
  Registry() {
    entries[0] = {"cpu", &host_runtime(), nullptr};
    entries[1].name = "cuda";
  }
};

// Made at its first use, which may be before main.
Registry& registry() {
  static Registry all;
  return all;
}

Entry& entry(Device device) {
  const auto index = static_cast<std::size_t>(device);
  GRIST_CHECK(index < registry().count, "there is no device number {}", index);
  return registry().entries[index];
}

}  // namespace

void DeviceRuntime::set_dense_matmul(DenseMatmul choice) {
  if (choice == DenseMatmul::cublas)
    fail(ExitCode::device_unavailable, "the device has its own products alone");
}

Device device_named(std::string_view name) {
  Registry& all = registry();
  for (std::size_t i = 0; i < all.count; ++i)
    if (all.entries[i].name == name) return static_cast<Device>(i);
  GRIST_CHECK(all.count < kMostDevices, "device {} is one more than {}", name, kMostDevices);
  all.entries[all.count].name = name;
  return static_cast<Device>(all.count++);
}

std::string_view name_of(Device device) {
  return entry(device).name;
}

void offer_device(Device device, EnableDevice enable) {
  entry(device).enable = enable;
}

bool enable_device(Device device, int index, std::string& why) {
  const Entry& e = entry(device);
  if (e.runtime != nullptr) return true;
  if (e.enable != nullptr) return e.enable(index, why);
  why = fmt::format("this build has no {} backend", e.name);
  return false;
}

void register_runtime(Device device, DeviceRuntime* runtime) {
  entry(device).runtime = runtime;
}

DeviceRuntime* find_runtime(Device device) {
  return entry(device).runtime;
}

DeviceRuntime& runtime(Device device) {
  const Entry& e = entry(device);
  if (e.runtime == nullptr)
    fail(ExitCode::device_unavailable, "this program has no device {}; use device: cpu", e.name);
  return *e.runtime;
}

DeviceProperties properties(Device device) {
  return runtime(device).properties();
}

OwnStream::~OwnStream() {
  DeviceRuntime& there = runtime(device_);
  try {
    there.wait(stream_);
  } catch (const Error&) {  // the device failed: whoever waited for the work was told
  }
  there.destroy_stream(stream_);
}

void copy_in(const Context& ctx, const TensorView& to, const void* from) {
  if (to.bytes() > 0) runtime(ctx.device).copy_in(ctx.stream, to.data, from, to.bytes());
}

void start_copy_out(const Context& ctx, void* to, const ConstTensorView& from) {
  if (from.bytes() > 0) runtime(ctx.device).copy_out(ctx.stream, to, from.data, from.bytes());
}

void copy_out(const Context& ctx, void* to, const ConstTensorView& from) {
  start_copy_out(ctx, to, from);
  if (from.bytes() > 0) wait(ctx);
}

void copy(const Context& ctx, const TensorView& to, const ConstTensorView& from) {
  GRIST_CHECK(to.bytes() == from.bytes(), "copy of {} bytes into {}", from.bytes(), to.bytes());
  if (to.bytes() > 0) runtime(ctx.device).copy(ctx.stream, to.data, from.data, to.bytes());
}

void wait(const Context& ctx) {
  runtime(ctx.device).wait(ctx.stream);
}

}  // namespace grist
