#include "device_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace grist::emu {

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kAlignment = 256;
constexpr int kPoison = 0xff;

std::size_t rounded_up(std::size_t n, std::size_t to) {
  return (n + to - 1) / to * to;
}

struct Allocation {
  std::size_t bytes = 0;
  Place place = Place::device;
  int device = 0;
  std::byte* map = nullptr;
  std::size_t map_bytes = 0;
};

struct Table {
  std::mutex mutex;
  std::map<const std::byte*, Allocation> allocations;
  std::size_t used[16] = {};
  int accesses = 0;  // living DeviceAccess
};
Table& table() {
  static Table* t = new Table;  // outlives every static object that frees memory
  return *t;
}

bool protecting() {
  static const bool on = [] {
    const char* s = std::getenv("GRIST_EMU_PROTECT");
    return s != nullptr && std::atoi(s) != 0;
  }();
  return on;
}

void protect(const Allocation& a, bool open) {
  if (a.place == Place::device)
    mprotect(a.map + kPage, a.map_bytes - 2 * kPage, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void protect_all(bool open) {
  for (const auto& [begin, a] : table().allocations) protect(a, open);
}

// Ends at a guard page, but for the rest of the last 256 bytes.
std::byte* map_guarded(std::size_t bytes, Allocation& a) {
  const std::size_t room = rounded_up(bytes == 0 ? 1 : bytes, kAlignment);
  a.map_bytes = rounded_up(room, kPage) + 2 * kPage;
  void* p =
      mmap(nullptr, a.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  a.map = static_cast<std::byte*>(p);
  if (mprotect(a.map + kPage, a.map_bytes - 2 * kPage, PROT_READ | PROT_WRITE) != 0) {
    munmap(p, a.map_bytes);
    return nullptr;
  }
  std::byte* begin = a.map + a.map_bytes - kPage - room;
  std::memset(begin, kPoison, room);
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(begin + bytes, room - bytes);
#endif
  return begin;
}

void* allocate(std::size_t bytes, Place place, int device) {
  Allocation a;
  a.bytes = bytes;
  a.place = place;
  a.device = device;
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  if (place == Place::device && t.used[device] + bytes > device_bytes_total()) return nullptr;
  std::byte* p = map_guarded(bytes, a);
  if (p == nullptr) return nullptr;
  if (place == Place::device) t.used[device] += bytes;
  if (protecting() && t.accesses == 0) protect(a, false);
  t.allocations[p] = a;
  return p;
}

bool release(void* p, Place place, bool& overrun) {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  const auto it = t.allocations.find(static_cast<const std::byte*>(p));
  if (it == t.allocations.end() || it->second.place != place) return false;
  const Allocation a = it->second;
  std::byte* end = a.map + a.map_bytes - kPage;
  protect(a, true);
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(a.map + kPage, a.map_bytes - 2 * kPage);
#endif
  for (const std::byte* b = it->first + a.bytes; b < end; ++b)
    overrun = overrun || *b != std::byte{kPoison};
  if (place == Place::device) t.used[a.device] -= a.bytes;
  t.allocations.erase(it);
  munmap(a.map, a.map_bytes);
  return true;
}

}  // namespace

DeviceAccess::DeviceAccess() {
  if (!protecting()) return;
  const std::lock_guard lock(table().mutex);
  if (table().accesses++ == 0) protect_all(true);
}
DeviceAccess::~DeviceAccess() {
  if (!protecting()) return;
  const std::lock_guard lock(table().mutex);
  if (--table().accesses == 0) protect_all(false);
}

void* allocate_device(std::size_t bytes, int device) {
  return allocate(bytes, Place::device, device);
}
bool release_device(void* p, bool& overrun) {
  return release(p, Place::device, overrun);
}
void* allocate_pinned(std::size_t bytes) {
  return allocate(bytes, Place::pinned, 0);
}
bool release_pinned(void* p) {
  bool overrun = false;
  return release(p, Place::pinned, overrun);
}

Range find_range(const void* p) {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  const auto* b = static_cast<const std::byte*>(p);
  auto it = t.allocations.upper_bound(b);
  if (it == t.allocations.begin()) return {};
  --it;
  if (b > it->first + it->second.bytes ||
      (b == it->first + it->second.bytes && it->second.bytes != 0))
    return {};
  return {it->second.place, it->second.device, it->first, it->second.bytes};
}

std::string describe_address(const void* p) {
  if (reinterpret_cast<std::uintptr_t>(p) < kPage) return "address 0 or near it";
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  const auto* b = static_cast<const std::byte*>(p);
  char text[160];
  for (const auto& [begin, a] : t.allocations) {
    if (b < a.map || b >= a.map + a.map_bytes) continue;
    const char* where = b < begin ? "before" : "from the begin of";
    std::snprintf(text, sizeof text, "%lld bytes %s an allocation of %zu bytes of %s memory",
                  static_cast<long long>(b < begin ? begin - b : b - begin), where, a.bytes,
                  a.place == Place::device ? "device" : "pinned host");
    return text;
  }
  std::snprintf(text, sizeof text, "%p, near no allocation (freed, or never made)", p);
  return text;
}

std::size_t device_bytes_used(int device) {
  Table& t = table();
  const std::lock_guard lock(t.mutex);
  return t.used[device];
}

std::size_t device_bytes_total() {
  static const std::size_t bytes = [] {
    const char* s = std::getenv("GRIST_EMU_MEMORY");  // MiB
    return (s == nullptr ? std::size_t{8192} : std::strtoull(s, nullptr, 10)) << 20;
  }();
  return bytes;
}

}  // namespace grist::emu
