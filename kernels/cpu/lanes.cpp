// Row arithmetic in sixteen lanes that no header can hold, CPU: functions with clones.
//
// Shapes    a row of n >= 0 floats.
// Launch    inside a task.
// Numerics  element-wise: exact by IEEE 754 on every instruction set.
// Traffic   a row read and written once.
// See       kernels/cpu/lanes.h, test tests/ops/cross_entropy_test.cpp.
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
