#pragma once
// Reads what Python's repr() writes of lists, dicts, strings, whole numbers, True, False and None,
// as ast.literal_eval does: RACE keeps its questions in such a string.
#include <string_view>

#include "grist/core/json.h"

namespace grist::eval {

// A tuple becomes an array. Throws Error{bad_data}: "<where>: <problem> at byte N". Depth at most
// 64; keys are strings; of two equal keys the later one counts.
Json parse_python_literal(std::string_view text, std::string_view where);

}  // namespace grist::eval
