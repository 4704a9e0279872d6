#pragma once
// What Python does to text in lm-evaluation-harness's tasks. A str is a sequence of code points;
// all functions take and give valid UTF-8. Source: CPython 3.11.
#include <cstddef>
#include <string>
#include <string_view>

namespace grist::eval {

std::size_t code_points(std::string_view text);  // len(str)
std::string_view rstrip(std::string_view text);  // str.rstrip()
std::string_view strip(std::string_view text);   // str.strip()
std::string capitalize(std::string_view text);   // str.capitalize()
std::string replace(std::string_view text, std::string_view from,
                    std::string_view to);             // str.replace(); `from` not empty
std::string remove_bracketed(std::string_view text);  // re.sub(r"\[.*?\]", "", str)

}  // namespace grist::eval
