#pragma once
// cp.async of one thread. A copy may take place at any moment between its start and the wait that
// ends its group; until then the destination holds NaN.
#include <cstddef>

#include "emulation/engine.h"
#include "work_groups.h"

namespace grist::emu {

struct Copy {
  void* to;
  const void* from;  // null: zeros
  std::size_t bytes;
  void operator()() const;
};
using AsyncCopies = WorkGroups<Copy>;

// Of the running thread.
void start_copy(const Copy& copy, Where where);

}  // namespace grist::emu
