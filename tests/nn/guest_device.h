#pragma once
// A device that no program of ours contains, registered under the name "guest": the CPU's
// operations on memory of its own, which the host can touch through the device's copies alone
// (anything else is a segmentation fault) and which comes full of nonsense.
#include "grist/core/device.h"

namespace grist::test {

Device guest_device();

struct GuestCounts {
  std::int64_t operations = 0, copies_in = 0, copies_out = 0;
};
GuestCounts guest_counts();  // since the program began

}  // namespace grist::test
