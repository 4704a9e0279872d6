#include "grist/ckpt/device_load.h"

#include "grist/core/device.h"

namespace grist {

namespace {

std::size_t bytes_of(const TensorDestination& d) {
  return static_cast<std::size_t>(d.part.size()) * size_of(d.dtype);
}

}  // namespace

void DeviceLoad::add(TensorDestination destination, Device device) {
  if (!properties(device).reads_host_memory) {
    to_device_.push_back({destinations_.size(), destination.data});
    bytes_ += bytes_of(destination);
  }
  destinations_.push_back(std::move(destination));
}

std::span<const TensorDestination> DeviceLoad::destinations() {
  if (host_.size() == bytes_) return destinations_;
  host_ = Buffer(bytes_, Device::cpu, "checkpoint being loaded");
  std::byte* next = host_.data();
  for (const auto& [index, target] : to_device_) {
    destinations_[index].data = next;
    next += bytes_of(destinations_[index]);
  }
  return destinations_;
}

void DeviceLoad::finish(const Context& ctx) {
  for (const auto& [index, target] : to_device_) {
    const TensorDestination& from = destinations_[index];
    copy_in(ctx, {target, from.dtype, {from.part.size()}}, from.data);
  }
  wait(ctx);
  host_ = {};
}

}  // namespace grist
