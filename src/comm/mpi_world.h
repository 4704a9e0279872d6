#pragma once
// The MPI transport's communicator. Internal to src/comm; comm/launch.h is the way in.
#include <memory>

#include "grist/comm/communicator.h"
#include "mpi_engine.h"

namespace grist::comm {

// All ranks of MPI_COMM_WORLD, which MPI has been initialised for.
std::unique_ptr<Communicator> mpi_world(std::shared_ptr<MpiEngine> engine);

}  // namespace grist::comm
