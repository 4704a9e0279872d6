#include "grist/core/compute_device.h"

namespace grist {

ComputeDevice::ComputeDevice(Device device, int threads, MemoryLedger* ledger,
                             std::atomic<std::uint64_t>* beats)
    : pool_(threads),
      scratch_(device, ledger),
      stream_(device),
      context_(device, stream_.get(), &scratch_) {
  context_.beats = beats;
  if (!properties(device).asynchronous) context_.pool = &pool_;
}

}  // namespace grist
