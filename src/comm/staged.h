#pragma once
// Device messages by way of pinned host memory.
#include "grist/comm/device.h"

namespace grist::comm {

std::unique_ptr<Communicator> staged_communicator(std::unique_ptr<Communicator> host,
                                                  const ComputeStream& compute);

}  // namespace grist::comm
