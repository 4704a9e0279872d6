// Operations that the CUDA backend does not have yet: weak definitions that say so.
#include <string>

#include "grist/core/error.h"
#include "kernels/backends.h"

namespace grist::cuda {

namespace {
[[noreturn]] void missing(const char* op) {
  throw Error(ExitCode::device_unavailable, std::string(op) + ": not in the CUDA backend yet");
}
}  // namespace

#define GRIST_MISSING(name, Args)                                     \
  __attribute__((weak)) void name(const Context&, const ops::Args&) { \
    missing(#name);                                                   \
  }
GRIST_OPS(GRIST_MISSING)
#undef GRIST_MISSING
__attribute__((weak)) std::size_t weight_bytes(DType dtype, const Shape& shape) {
  return static_cast<std::size_t>(shape.numel()) * size_of(dtype);
}

}  // namespace grist::cuda
