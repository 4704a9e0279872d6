#include "grist/core/path.h"

#include <algorithm>
#include <cstdlib>

#include "grist/core/check.h"

namespace grist {

namespace {

constexpr std::string_view kNameLetters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";

// A part of the path that a shell would replace.
struct Variable {
  std::size_t at = 0;
  std::size_t size = 0;  // 0: there is none
  std::string name;
};

Variable variable_in(std::string_view path) {
  for (auto at = path.find('$'); at != std::string_view::npos; at = path.find('$', at + 1)) {
    const bool braces = path.substr(at + 1).starts_with('{');
    const std::size_t begin = at + (braces ? 2 : 1);
    const std::size_t end = std::min(path.find_first_not_of(kNameLetters, begin), path.size());
    if (begin >= end || (braces && (end == path.size() || path[end] != '}'))) continue;
    return {at, end + (braces ? 1 : 0) - at, std::string(path.substr(begin, end - begin))};
  }
  return {};
}

// With the part replaced, when its value is known.
std::string meant(std::string_view path, const Variable& v) {
  const char* const value = std::getenv(v.name.c_str());
  if (value == nullptr) return "";
  return std::string(path.substr(0, v.at)) + value + std::string(path.substr(v.at + v.size));
}

}  // namespace

std::string unexpanded(std::string_view path) {
  const bool home = path.starts_with('~');
  const bool own_home = home && (path.size() == 1 || path[1] == '/');
  const Variable v = home ? Variable{0, own_home ? 1U : path.find('/'), "HOME"} : variable_in(path);
  if (v.size == 0) return "";
  const std::string written(path.substr(v.at, v.size));
  const std::string known = home && !own_home ? "" : meant(path, v);
  const std::string instead = known.empty() ? "the path out" : known;
  return fmt::format("{}: {} is not expanded here; write {}{}", path, written, instead,
                     home && !own_home ? fmt::format(" (or ./{})", path) : "");
}

}  // namespace grist
