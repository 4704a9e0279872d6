#include "host_runtime.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "grist/core/check.h"

namespace grist {

namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t round_up(std::size_t n, std::size_t to) {
  return (n + to - 1) / to * to;
}

// Zero-filled; null when there is not enough.
std::byte* allocate_host(std::size_t bytes) {
  const bool large = bytes >= kHugePage;
  const std::size_t size = round_up(bytes, large ? kHugePage : kAlign);
  void* p = std::aligned_alloc(large ? kHugePage : kAlign, size);
  if (p == nullptr) return nullptr;
  if (large) madvise(p, size, MADV_HUGEPAGE);  // fewer TLB misses; a refusal changes nothing
  std::memset(p, 0, size);
  return static_cast<std::byte*>(p);
}

class HostRuntime final : public DeviceRuntime {
 public:
  DeviceProperties properties() const override { return {.reads_host_memory = true}; }
  std::string describe() const override { return "CPU"; }
  std::string kind() const override { return "CPU"; }  // its bits depend on no kind of machine
  std::string address() const override { return "cpu"; }

  std::byte* allocate(std::size_t bytes) override { return allocate_host(bytes); }
  void release(std::byte* p) noexcept override { std::free(p); }
  std::byte* allocate_pinned(std::size_t bytes) override { return allocate_host(bytes); }
  void release_pinned(std::byte* p) noexcept override { std::free(p); }

  // Nothing is ever under way, so there is nothing to order or to wait for.
  CUstream_st* make_stream() override { return nullptr; }
  void destroy_stream(CUstream_st* /*s*/) noexcept override {}
  void wait(CUstream_st* /*s*/) override {}
  void order(CUstream_st* /*earlier*/, CUstream_st* /*later*/) override {}
  CUevent_st* mark(CUstream_st* /*s*/) override { return nullptr; }
  void order(CUevent_st* /*earlier*/, CUstream_st* /*later*/) override {}
  void wait(CUevent_st* /*m*/) override {}
  void destroy_mark(CUevent_st* /*m*/) noexcept override {}

  void begin_capture(CUstream_st* /*s*/) override { cannot_record(); }
  CUgraphExec_st* end_capture(CUstream_st* /*s*/) override { cannot_record(); }
  void abandon_capture(CUstream_st* /*s*/) noexcept override {}
  void launch(CUgraphExec_st* /*graph*/, CUstream_st* /*s*/) override { cannot_record(); }
  void destroy_graph(CUgraphExec_st* /*graph*/) noexcept override {}

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

 private:
  [[noreturn]] static void cannot_record() {
    fail(ExitCode::internal, "the CPU records no graphs");
  }
};

}  // namespace

DeviceRuntime& host_runtime() {
  static HostRuntime cpu;
  return cpu;
}

}  // namespace grist
