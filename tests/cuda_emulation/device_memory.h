#pragma once
// Device memory: host memory filled with NaN, each allocation between guard pages.
#include <cstddef>
#include <string>

namespace grist::emu {

void* allocate_device(std::size_t bytes, int device);  // null: more than the device has
// False: not the begin of an allocation. `overrun`: something was written between the end and the
// next multiple of 256 bytes.
bool release_device(void* p, bool& overrun);
void* allocate_pinned(std::size_t bytes);
bool release_pinned(void* p);

// While one of these lives on any OS thread, device memory may be touched. It matters where
// GRIST_EMU_PROTECT=1 keeps the host from touching it at other times; slow, so not the rule.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

enum class Place { pageable, pinned, device };
struct Range {
  Place place = Place::pageable;
  int device = 0;
  const std::byte* begin = nullptr;  // null for pageable memory
  std::size_t bytes = 0;
};
Range find_range(const void* p);
std::string describe_address(const void* p);
std::size_t device_bytes_used(int device);
std::size_t device_bytes_total();

}  // namespace grist::emu
