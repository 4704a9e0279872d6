#include "cores.h"

#include <algorithm>

namespace grist::comm {

int core_share(std::span<const cpu_set_t> allowed, std::size_t self) {
  constexpr double kRounding = 1e-6;  // three thirds are one
  double share = kRounding;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    const auto may_use = [&](const cpu_set_t& set) { return CPU_ISSET(core, &set) != 0; };
    if (may_use(allowed[self]))
      share += 1.0 / static_cast<double>(std::ranges::count_if(allowed, may_use));
  }
  return std::max(1, static_cast<int>(share));
}

}  // namespace grist::comm
