#pragma once
// How the ranks of one machine share its cores.
#include <sched.h>

#include <cstddef>
#include <span>

namespace grist::comm {

// Cores that rank `self` has, from the cores that each rank of its machine may run on: one that n
// of them may use counts 1/n. At least 1.
int core_share(std::span<const cpu_set_t> allowed, std::size_t self);

}  // namespace grist::comm
