#include "kernels/cpu/lanes.h"

namespace grist::cpu {

GRIST_CLONES void scale_row(float* x, float s, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    Lanes v;
    load(v, x + i, n - i);
    store(x + i, v * s, n - i);
  }
}

}  // namespace grist::cpu
