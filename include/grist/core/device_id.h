#pragma once
// Where memory lies and operations run: a number that core/device.h's registry knows by name. These
// two have theirs from the start; a device that registers under another name gets the next one.
#include <cstdint>

namespace grist {

enum class Device : std::uint8_t { cpu, cuda };

}  // namespace grist
