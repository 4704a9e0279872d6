#pragma once
// A line of JSON, read as Python's json reads it: numbers of any size, NaN and Infinity, and of a
// repeated key the last. Only the syntax of values is checked; they stay the bytes they are.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/data/document.h"

namespace grist {

// The members of the object that `line` holds, in its order. Returns why there is no object, or an
// empty string. `line` must be valid UTF-8.
std::string scan_object(std::string_view line, std::vector<JsonMember>& members);

// The last one of that name; null: none.
const JsonMember* last_member(std::span<const JsonMember> members, std::string_view name);

}  // namespace grist
