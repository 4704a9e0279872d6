#pragma once
// The device that a configuration names, the same kind for all ranks.
#include "grist/comm/communicator.h"
#include "grist/config/config.h"
#include "grist/nn/choose_device.h"

namespace grist::parallel {

// Collective over the ranks of `world`: the same kind of device for all (of GPU, too), and the
// ranks of one host take its GPUs in turn. Throws as nn::choose_device does, on all ranks, and
// Error{device_unavailable} where the ranks' devices differ.
nn::DeviceChoice choose_device(const Config& config, comm::Communicator& world, int local_rank);

}  // namespace grist::parallel
