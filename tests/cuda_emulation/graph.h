#pragma once
// Recorded work, and what must be done before each piece of it.
#include <driver_types.h>

#include <memory>
#include <vector>

#include "streams.h"

namespace grist::emu {

using Places = std::vector<std::size_t>;  // of nodes

struct Node {
  Work work;
  Places after;  // nodes that come before it
};
using Nodes = std::vector<Node>;

}  // namespace grist::emu

struct CUgraph_st {
  std::shared_ptr<const grist::emu::Nodes> nodes;
};
