#include "shared_memory.h"

#include <link.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace grist::emu {

namespace {
constexpr std::size_t kGuard = 64 * 1024;
constexpr std::size_t kRoom = 228 * 1024;
constexpr unsigned char kPoison = 0xff;  // NaN in bf16 and f32

struct Range {
  const char* begin = nullptr;
  std::size_t size = 0;
};

// Where this OS thread keeps the program's thread-local variables.
Range thread_local_range() {
  Range r;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* out) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type == PT_TLS && info->dlpi_tls_data != nullptr) {
            *static_cast<Range*>(out) = {static_cast<const char*>(info->dlpi_tls_data),
                                         info->dlpi_phdr[i].p_memsz};
          }
        }
        return 1;  // the program itself comes first
      },
      &r);
  return r;
}
}  // namespace

SharedMemory::SharedMemory() {
  void* p = mmap(nullptr, kRoom + 2 * kGuard, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::perror("CUDA emulation: shared memory");
    std::abort();
  }
  map_ = static_cast<std::byte*>(p);
  mprotect(map_ + kGuard, kRoom, PROT_READ | PROT_WRITE);
  end_ = map_ + kGuard + kRoom;
  data_ = end_;
}

SharedMemory::~SharedMemory() {
  munmap(map_, kRoom + 2 * kGuard);
}

void SharedMemory::start_block(std::size_t bytes) {
  bytes_ = bytes;
  data_ = end_ - (bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
  std::memset(data_, kPoison, static_cast<std::size_t>(end_ - data_));
}

bool SharedMemory::slack_untouched() const {
  for (const std::byte* p = data_ + bytes_; p < end_; ++p) {
    if (*p != std::byte{kPoison}) return false;
  }
  return true;
}

bool SharedMemory::contains(const void* p, std::size_t bytes) const {
  const auto* b = static_cast<const std::byte*>(p);
  return b >= data_ && b + bytes <= data_ + bytes_;
}

bool SharedMemory::guard_contains(const void* p) const {
  const auto* b = static_cast<const std::byte*>(p);
  return b >= map_ && b < end_ + kGuard;
}

bool in_static_shared(const void* p, std::size_t bytes) {
  thread_local const Range r = thread_local_range();
  const auto* b = static_cast<const char*>(p);
  return b >= r.begin && b + bytes <= r.begin + r.size;
}

}  // namespace grist::emu
