#pragma once
// Device messages by NCCL.
#include "grist/comm/device.h"
#include "nccl_library.h"

namespace grist::comm {

// Collective over `host`, which serves for splits later. `nccl` outlives the communicator.
std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator> host,
                                                const ComputeStream& compute,
                                                const NcclLibrary& nccl);

}  // namespace grist::comm
