#pragma once
// Where this process computes: the device that the configuration asks for, and all that operations
// need there.
#include <string>

#include "grist/comm/communicator.h"
#include "grist/config/config.h"
#include "grist/core/context.h"
#include "grist/core/memory.h"

namespace grist::train {

struct DeviceChoice {
  Device device = Device::cpu;
  std::string why_not_cuda;  // with device: auto on a machine without a usable GPU
};

// Collective over the ranks of `world`: the same kind of device for all (of GPU, too), and the
// ranks of one host take its GPUs in turn. Throws, on all ranks, Error{device_unavailable} where
// device: cuda cannot be had, Error{config} for a precision that the device does not have.
DeviceChoice choose_device(const Config& config, comm::Communicator& world, int local_rank);

class ComputeDevice {
 public:
  // threads: as ThreadPool. `ledger` and `beats` may be null; they outlive this.
  ComputeDevice(Device device, int threads, MemoryLedger* ledger,
                std::atomic<std::uint64_t>* beats);
  ~ComputeDevice();
  ComputeDevice(const ComputeDevice&) = delete;
  ComputeDevice& operator=(const ComputeDevice&) = delete;
  const Context& context() const { return context_; }
  int threads() const { return pool_.size(); }

 private:
  ThreadPool pool_;
  Scratch scratch_;
  Context context_;
};

}  // namespace grist::train
