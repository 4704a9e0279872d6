#include "nn/guest_device.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "grist/core/synchronous_device.h"
#include "kernels/backends.h"

namespace grist::test {

namespace {

// Stretches that nobody may touch unless somebody works on the device.
class Memory {
 public:
  std::byte* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    std::memset(p, 0x7f, bytes);
    stretches_[p] = bytes;
    if (at_work_ == 0) mprotect(p, bytes, PROT_NONE);
    return static_cast<std::byte*>(p);
  }
  void release(std::byte* p) {
    const std::lock_guard lock(mutex_);
    const auto found = stretches_.find(p);
    munmap(p, found->second);
    stretches_.erase(found);
  }
  void open() {
    const std::lock_guard lock(mutex_);
    if (at_work_++ == 0) protect(PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--at_work_ == 0) protect(PROT_NONE);
  }

 private:
  void protect(int how) {
    for (const auto& [p, bytes] : stretches_) mprotect(p, bytes, how);
  }
  std::mutex mutex_;
  std::map<void*, std::size_t> stretches_;
  int at_work_ = 0;
};

Memory& memory() {
  static Memory all;
  return all;
}

struct AtWork {
  AtWork() { memory().open(); }
  ~AtWork() { memory().close(); }
  AtWork(const AtWork&) = delete;
  AtWork& operator=(const AtWork&) = delete;
};

std::atomic<std::int64_t> operations = 0, copies_in = 0, copies_out = 0;

class Guest final : public SynchronousDevice {
 public:
  DeviceProperties properties() const override { return {}; }
  std::string describe() const override { return "a guest"; }
  std::string kind() const override { return "guest"; }
  std::string address() const override { return "guest"; }

  std::byte* allocate(std::size_t bytes) override { return memory().allocate(bytes); }
  void release(std::byte* p) noexcept override { memory().release(p); }
  std::byte* allocate_pinned(std::size_t bytes) override {
    return static_cast<std::byte*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  }
  void release_pinned(std::byte* p) noexcept override { std::free(p); }

  void copy_in(CUstream_st* s, void* to, const void* from, std::size_t bytes) override {
    ++copies_in;
    copy(s, to, from, bytes);
  }
  void copy_out(CUstream_st* s, void* to, const void* from, std::size_t bytes) override {
    ++copies_out;
    copy(s, to, from, bytes);
  }
  void copy(CUstream_st* /*s*/, void* to, const void* from, std::size_t bytes) override {
    const AtWork now;
    std::memcpy(to, from, bytes);
  }
  void clear(CUstream_st* /*s*/, void* to, std::size_t bytes) override {
    const AtWork now;
    std::memset(to, 0, bytes);
  }
};

#define GRIST_GUEST(name, Args)                \
  [](const Context& ctx, const ops::Args& a) { \
    const AtWork now;                          \
    ++operations;                              \
    cpu::name(ctx, a);                         \
  },
const Backend kBackend = {GRIST_OPS(GRIST_GUEST) cpu::weight_bytes};
#undef GRIST_GUEST

}  // namespace

Device guest_device() {
  static Guest runtime;
  static const Device device = [] {
    const Device d = device_named("guest");
    register_runtime(d, &runtime);
    ops::register_backend(d, &kBackend);
    return d;
  }();
  return device;
}

GuestCounts guest_counts() {
  return {operations, copies_in, copies_out};
}

}  // namespace grist::test
