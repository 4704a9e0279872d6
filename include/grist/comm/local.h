#pragma once
// The `local` transport: the ranks are threads of one process. For tests, debuggers and sanitizers.
#include <functional>
#include <memory>

#include "grist/comm/communicator.h"

namespace grist::comm {

// Runs body(world) on `size` threads, one a rank, and returns when all have ended. The first error
// makes the waits of all others throw Error{peer_lost}, and is rethrown here.
void run_local(int size, const std::function<void(Communicator&)>& body);

}  // namespace grist::comm
