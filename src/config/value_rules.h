#pragma once
// Checks a single value against the rule beside its field in config.h.
#include <string>

#include "fields.h"

namespace grist::config {

// An empty string, or what is wrong with the slot's value.
std::string check_limits(const Slot& slot);

}  // namespace grist::config
