#pragma once
// The block `derived` that a saved configuration ends with: each value that was worked out from
// others, under its key. A value that still is the one there was not changed by hand, so it is
// forgotten and worked out again; one that differs is the user's and stays.
#include "problems.h"
#include "yaml_tree.h"

namespace grist::config {

enum class Derived { work_out_again, keep };

// Takes the block out of the tree, and with work_out_again the values that follow it.
void take_derived_block(YamlNode& root, Derived what, Problems& problems);

}  // namespace grist::config
