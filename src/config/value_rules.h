#pragma once
// What a single value may be, whatever the others are: ranges of numbers, allowed words.
#include <string>

#include "fields.h"

namespace grist::config {

// An empty string, or what is wrong with the slot's value. List items' keys have their number
// written as "*": "data.train.*.weight".
std::string check_limits(std::string_view key, const Target& target);

// For the test that no key is left without a rule.
bool has_limit(std::string_view key);

}  // namespace grist::config
