// The CPU's table of operations.
#include "kernels/backends.h"

namespace grist::cpu {

namespace {
#define GRIST_ENTRY(name, Args) name,
const Backend kBackend = {GRIST_OPS(GRIST_ENTRY) weight_bytes};
#undef GRIST_ENTRY
}  // namespace

const Backend& backend() {
  return kBackend;
}

}  // namespace grist::cpu
