// The error check that all of this backend uses.
#include <cuda_runtime.h>

#include <string>

#include "grist/core/error.h"
#include "kernels/backends.h"
#include "launch.h"

namespace grist::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const ExitCode code =
      status == cudaErrorMemoryAllocation ? ExitCode::out_of_memory : ExitCode::device_unavailable;
  throw Error(code, std::string(what) + ": " + cudaGetErrorString(status));
}

}  // namespace grist::cuda
