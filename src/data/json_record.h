#pragma once
// A line of JSON, read as Python's json reads it: numbers of any size, NaN and Infinity, and of a
// repeated key the last. Only the syntax of values is checked; they stay the bytes they are.
#include <string>
#include <string_view>

namespace grist {

struct JsonMember {
  bool found = false;
  std::string_view raw;  // the value as it stands in the line
};

// The last member `key` of the object that `line` holds. Returns why there is no object to look in,
// or an empty string. `line` must be valid UTF-8.
std::string find_member(std::string_view line, std::string_view key, JsonMember& member);

// The text of a JSON string with its quotes, which find_member has checked: a view of `raw` where
// it holds no escape, else of `buffer`. Returns false for half of a surrogate pair, which is no
// character.
bool string_value(std::string_view raw, std::string& buffer, std::string_view& text);

}  // namespace grist
