#pragma once
// The machine that this process runs on.
#include <cstddef>
#include <string>

namespace grist {

std::string host_name();  // "unknown" where the system does not say
int available_cores();    // that this process may run on; at least 1
// Bytes that can be taken before the kernel has to end a process: of the machine (with its swap)
// and of the control groups that this process is in.
std::size_t available_memory();

}  // namespace grist
