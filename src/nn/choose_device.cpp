#include "grist/nn/choose_device.h"

#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::nn {

DeviceChoice choose_device(const Config& config, int index, const char* instead) {
  DeviceChoice choice;
  if (config.device == WantedDevice::auto_) {
    if (enable_device(Device::cuda, index, choice.why_not_cuda)) choice.device = Device::cuda;
  } else {
    choice.device = device_named(word(config.device));
    std::string why;
    if (!enable_device(choice.device, index, why))
      fail(ExitCode::device_unavailable, "device: {}: {}; use {}", word(config.device), why,
           instead);
  }
  if (config.precision == Precision::bf16 && !properties(choice.device).bf16)
    fail(ExitCode::config, "precision: bf16 needs device: cuda{}; use precision: fp32",
         config.device == WantedDevice::auto_ ? fmt::format(" ({})", choice.why_not_cuda) : "");
  return choice;
}

}  // namespace grist::nn
