#pragma once
// Paths as users write them.
#include <string>
#include <string_view>

namespace grist {

// A path is taken as it stands: ~ and $NAME would be folders of those names. Where a shell did not
// expand them (in a configuration, behind `=`, in quotes), this says so and names the path that is
// meant; empty: nothing to expand. "./~" is the folder of that name.
std::string unexpanded(std::string_view path);

}  // namespace grist
