#pragma once
// The machine that this process runs on.
#include <string>

namespace grist {

std::string host_name();  // "unknown" where the system does not say
int available_cores();    // that this process may run on; at least 1

}  // namespace grist
