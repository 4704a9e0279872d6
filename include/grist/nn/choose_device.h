#pragma once
// The device that a configuration names, made ready.
#include <string>

#include "grist/config/config.h"
#include "grist/core/device_id.h"

namespace grist::nn {

struct DeviceChoice {
  Device device = Device::cpu;
  std::string why_not_cuda;  // with device: auto on a machine without a usable GPU
};

// For one process; parallel/choose_device.h has the one for ranks. `index`: which of the machine's
// GPUs, modulo those there are. Throws Error{device_unavailable} where device: cuda cannot be had,
// Error{config} for a precision that the device does not have. Dense products are
// the configuration's from then on. `instead`: what a message tells the user to give.
DeviceChoice choose_device(const Config& config, int index, const char* instead = "device: cpu");

}  // namespace grist::nn
