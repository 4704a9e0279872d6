#include "host_runtime.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "grist/core/host.h"
#include "grist/core/synchronous_device.h"
#include "round_up.h"

namespace grist {

namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kAsked = std::size_t{64} << 20;  // from here on the machine is asked first

// Zero-filled; null when there is not enough.
std::byte* allocate_host(std::size_t bytes) {
  const bool large = bytes >= kHugePage;
  if (bytes >= kAsked && bytes > available_memory()) return nullptr;
  const std::size_t size = round_up(bytes, large ? kHugePage : kAlign);
  void* p = std::aligned_alloc(large ? kHugePage : kAlign, size);
  if (p == nullptr) return nullptr;
  if (large) madvise(p, size, MADV_HUGEPAGE);  // fewer TLB misses; a refusal changes nothing
  std::memset(p, 0, size);
  return static_cast<std::byte*>(p);
}

class HostRuntime final : public SynchronousDevice {
 public:
  DeviceProperties properties() const override { return {.reads_host_memory = true}; }
  std::string describe() const override { return "CPU"; }
  std::string kind() const override { return "CPU"; }  // its bits depend on no kind of machine
  std::string address() const override { return "cpu"; }

  std::byte* allocate(std::size_t bytes) override { return allocate_host(bytes); }
  void release(std::byte* p) noexcept override { std::free(p); }
  std::byte* allocate_pinned(std::size_t bytes) override { return allocate_host(bytes); }
  void release_pinned(std::byte* p) noexcept override { std::free(p); }

  void copy_in(CUstream_st* s, void* to, const void* from, std::size_t bytes) override {
    copy(s, to, from, bytes);
  }
  void copy_out(CUstream_st* s, void* to, const void* from, std::size_t bytes) override {
    copy(s, to, from, bytes);
  }
  void copy(CUstream_st* /*s*/, void* to, const void* from, std::size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void clear(CUstream_st* /*s*/, void* to, std::size_t bytes) override {
    std::memset(to, 0, bytes);
  }
};

}  // namespace

DeviceRuntime& host_runtime() {
  static HostRuntime cpu;
  return cpu;
}

}  // namespace grist
