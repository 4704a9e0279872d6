#pragma once
// Tests that run on the ranks of mpirun (CMake: grist_mpi_test). Every rank runs every test, in the
// same order.
#include "grist/comm/launch.h"

namespace grist::test {

// The ranks that mpirun has started.
const comm::Launch& launched();
comm::Communicator& world();

}  // namespace grist::test
