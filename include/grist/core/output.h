#pragma once
// Standard output. A reader that has gone (`| head`) has what it wanted: the rest is dropped, and
// nothing is wrong.
#include <string_view>

namespace grist {

// At once, behind what stdio holds. Error{io} when it cannot be written, unless the reader has
// gone.
void write_output(std::string_view text);

}  // namespace grist
