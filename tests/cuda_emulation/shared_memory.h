#pragma once
// Dynamic shared memory of the block that an OS thread runs: filled with NaN when the block starts,
// and ending at a guard page.
#include <cstddef>
#include <cstdint>
#include <string>

namespace grist::emu {

constexpr std::size_t kMaxSharedBytes = 227 * 1024;  // opt-in maximum of a block
constexpr std::size_t kSharedAlignment = 1024;

class SharedMemory {
 public:
  SharedMemory();
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  void start_block(std::size_t bytes);
  bool slack_untouched() const;  // between the end and the guard page
  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  bool contains(const void* p, std::size_t bytes) const;
  bool guard_contains(const void* p) const;
  std::uint32_t address(const void* p) const {
    return static_cast<std::uint32_t>(
        kSharedAlignment + static_cast<std::size_t>(static_cast<const std::byte*>(p) - data_));
  }

 private:
  std::byte* map_ = nullptr;
  std::byte* end_ = nullptr;  // where the upper guard begins
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Whether p points into static __shared__ arrays: the running OS thread's thread-local storage.
bool in_static_shared(const void* p, std::size_t bytes);

}  // namespace grist::emu
