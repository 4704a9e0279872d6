#pragma once
// The CPU as a device: its memory is the host's, and what is asked of it is done in the call.
#include "grist/core/device.h"

namespace grist {

DeviceRuntime& host_runtime();

}  // namespace grist
