#pragma once
// Memory that a run owns. Each big block has a label; a MemoryLedger adds them up, and start-up
// prints the table. Buffer owns bytes; Arena hands out aligned pieces of one Buffer; Scratch is a
// stack for temporaries of one operation.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/device_id.h"
#include "grist/core/tensor.h"

namespace grist {

// Bytes by label, for the table printed at start-up. Not thread-safe; must outlive the buffers that
// registered with it.
class MemoryLedger {
 public:
  void add(std::string_view label, std::size_t bytes, Device device = Device::cpu);
  void remove(std::string_view label, std::size_t bytes, Device device = Device::cpu);
  struct Entry {
    std::string label;
    std::size_t bytes = 0;
    Device device = Device::cpu;
  };
  const std::vector<Entry>& entries() const { return entries_; }  // in order of first use
  std::size_t total_bytes(Device device = Device::cpu) const;
  // "optimizer 2.00 GiB, parameters 1.00 GiB"; empty when nothing is held.
  std::string largest_first(Device device) const;

  // From here on large buffers are only planned: memory that the host reads is address space that
  // nothing has touched, and device memory that there is not enough of is replaced by such. So all
  // of a run is laid out and added up before its first byte is written.
  void plan() { planning_ = true; }
  bool planning() const { return planning_; }
  // What was planned and does not fit, in one line with the sums; empty: all of it fits. The host
  // has `available` bytes, of which `others` (the program, other ranks) go first.
  std::string shortfall(std::size_t available, std::size_t others) const;

 private:
  friend class Buffer;
  std::vector<Entry> entries_;
  std::vector<std::string> missed_;  // labels of device memory that was not to be had
  bool planning_ = false;
};

struct BufferFree {             // Buffer's deleter; tells the ledger
  Device device = Device::cpu;  // where the bytes lie
  Device owner = Device::cpu;   // who gave them: another one for host memory that it reads
  bool planned = false;         // address space of MemoryLedger::plan
  std::size_t bytes = 0;
  std::string label;
  MemoryLedger* ledger = nullptr;
  void operator()(std::byte* p) const noexcept;
};

// Owns bytes on one device, 64-byte aligned (2 MiB for large ones on the CPU, 256 bytes on a GPU),
// zero-filled on the CPU.
// Move-only. Throws Error{out_of_memory} naming the label and the size, on the CPU before the
// kernel would have to end a process for it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(std::size_t bytes, Device device, std::string_view label, MemoryLedger* ledger = nullptr);
  // Host memory that `reader` reads and writes directly, so that copies go on beside the host's
  // work. On the CPU that is any memory.
  static Buffer pinned(Device reader, std::size_t bytes, std::string_view label,
                       MemoryLedger* ledger = nullptr);
  std::byte* data() const { return data_.get(); }
  std::size_t size() const { return bytes_; }
  Device device() const { return data_.get_deleter().device; }
  // A dense view at an offset; checks bounds and alignment.
  TensorView view(DType dtype, const Shape& shape, std::size_t offset_bytes = 0) const;

 private:
  bool take_planned(Device device, std::string_view label, MemoryLedger* ledger);
  void take(std::byte* p, const BufferFree& free);
  std::unique_ptr<std::byte, BufferFree> data_;
  std::size_t bytes_ = 0;
};

// One labelled Buffer cut into 64-byte aligned tensors. Plan first (sizes add up while planning),
// then allocate once.
class Arena {
 public:
  Arena(std::string label, Device device, MemoryLedger* ledger)
      : label_(std::move(label)), device_(device), ledger_(ledger) {}
  // Reserves room and returns the offset to pass to view(). Only before commit().
  std::size_t reserve(DType dtype, const Shape& shape);
  std::size_t reserve_bytes(std::size_t bytes);
  void commit();
  TensorView view(std::size_t offset, DType dtype, const Shape& shape) const {
    return buffer_.view(dtype, shape, offset);
  }
  std::size_t size() const { return planned_; }
  const Buffer& buffer() const { return buffer_; }

 private:
  std::string label_;
  Device device_;
  MemoryLedger* ledger_;
  std::size_t planned_ = 0;
  Buffer buffer_;
};

// A stack of temporaries. Grows while it warms up (each growth is counted); a step after warm-up
// allocates nothing. Take a ScratchScope at the top of an operation: what was allocated inside is
// released when the scope ends.
class Scratch {
 public:
  explicit Scratch(Device device = Device::cpu, MemoryLedger* ledger = nullptr)
      : device_(device), ledger_(ledger) {}
  std::byte* allocate(std::size_t bytes);  // 64-byte aligned, not cleared
  template <class T> T* allocate(std::int64_t count) {
    return reinterpret_cast<T*>(allocate(static_cast<std::size_t>(count) * sizeof(T)));
  }
  TensorView tensor(DType dtype, const Shape& shape);
  int growths() const { return growths_; }
  std::size_t capacity() const;

 private:
  friend class ScratchScope;
  struct Chunk {
    Buffer buffer;
    std::size_t used = 0;
  };
  Device device_;
  MemoryLedger* ledger_;
  std::vector<Chunk> chunks_;
  std::size_t current_ = 0;
  int growths_ = 0;
};

class ScratchScope {
 public:
  explicit ScratchScope(Scratch* scratch);
  ~ScratchScope();
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Scratch* scratch_;
  std::size_t chunk_;
  std::size_t used_;
};

std::string human_bytes(std::size_t bytes);  // "1.25 GiB"

}  // namespace grist
