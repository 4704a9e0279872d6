#pragma once
// Where memory lies and operations run. What a device can do is core/device.h's.
#include <cstdint>

namespace grist {

enum class Device : std::uint8_t { cpu, cuda };

}  // namespace grist
