#pragma once
// Strings of JSON, for the readers that go through text without making a tree of it.
#include <cstddef>
#include <string>
#include <string_view>

namespace grist {

// text[at] is the first quote of a string. Moves `at` behind its last quote and returns null, or
// moves it to what is wrong and returns what that is. The bytes between are taken as UTF-8.
const char* skip_json_string(std::string_view text, std::size_t& at);

// The characters of a string that skip_json_string has passed, `raw` with its quotes: a view of
// `raw` where it holds no escape, else of `buffer`. False for half of a surrogate pair, which is no
// character.
bool json_string_value(std::string_view raw, std::string& buffer, std::string_view& text);

}  // namespace grist
