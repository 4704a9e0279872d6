#pragma once
// All that operations need where this process computes: threads, a stream, scratch memory.
#include <atomic>
#include <cstdint>

#include "grist/core/context.h"
#include "grist/core/device.h"
#include "grist/core/memory.h"

namespace grist {

class ComputeDevice {
 public:
  // threads: as ThreadPool. `ledger` and `beats` may be null; they outlive this. The device is
  // ready (enable_device).
  ComputeDevice(Device device, int threads, MemoryLedger* ledger,
                std::atomic<std::uint64_t>* beats);
  ComputeDevice(const ComputeDevice&) = delete;
  ComputeDevice& operator=(const ComputeDevice&) = delete;
  const Context& context() const { return context_; }
  int threads() const { return pool_.size(); }

 private:
  ThreadPool pool_;
  Scratch scratch_;
  OwnStream stream_;
  Context context_;
};

}  // namespace grist
