#pragma once
// Ranks that send each other device memory. A device communicator is a Communicator whose spans
// point to device memory, so the collectives of comm/collectives.h work on tensors there; those for
// small values on the host do not, and go over a communicator of the host.
//
// Its operations join the order of the compute stream: an exchange reads and writes memory after
// the work that was on the stream when it began, and what is put on the stream after wait() finds
// the data there.
//   nccl    messages go from GPU to GPU on a stream of their own. Neither exchange() nor wait()
//           waits for the device.
//   staged  over the host's communicator and pinned memory. exchange() waits for the compute
//           stream's work so far; wait() for the messages.
// Both move bytes and add nothing up, so results do not depend on the choice.
#include <memory>
#include <string>

#include "grist/comm/communicator.h"
#include "grist/core/device_id.h"

struct CUstream_st;

namespace grist::comm {

enum class DeviceTransport { automatic, nccl, staged };

// Whose order messages join.
struct ComputeStream {
  Device device;
  CUstream_st* stream;
};

struct DeviceCommunicator {
  std::unique_ptr<Communicator> communicator;
  std::string description;  // for the log: "nccl 2.27.3", or "staged: " and why not nccl
};

// Of the ranks of `host`, over a split of it, for the thread that puts work on `compute`.
// Collective; blocks. automatic: NCCL where it takes the device's memory, every rank has a GPU of
// its own and libnccl.so.2 can be loaded. All ranks choose alike. Throws Error{device_unavailable}
// where `wanted` is nccl and cannot be had.
DeviceCommunicator device_communicator(Communicator& host, const ComputeStream& compute,
                                       DeviceTransport wanted = DeviceTransport::automatic);

}  // namespace grist::comm
