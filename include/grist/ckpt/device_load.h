#pragma once
// Tensors of a checkpoint on their way to where they belong: straight there, or through host memory
// where the host does not write the device's.
#include <span>
#include <utility>
#include <vector>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/context.h"
#include "grist/core/memory.h"

namespace grist {

class DeviceLoad {
 public:
  // `data` of the destination lies on `device`.
  void add(TensorDestination destination, Device device);
  // For CheckpointReader::read(), after the last add().
  std::span<const TensorDestination> destinations();
  // Once they are filled: everything is where it belongs. `ctx` is the device's.
  void finish(const Context& ctx);

 private:
  std::vector<TensorDestination> destinations_;
  std::vector<std::pair<std::size_t, void*>> to_device_;  // of destinations_, and where they belong
  std::size_t bytes_ = 0;
  Buffer host_;
};

}  // namespace grist
