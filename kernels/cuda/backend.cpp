// The error check that all of this backend uses.
#include <cuda_runtime.h>

#include <string>

#include "grist/core/error.h"
#include "kernels/backends.h"
#include "launch.h"

namespace grist::cuda {

namespace {

// A kernel did what it must not; until the process ends every call then gives this answer.
bool is_fault(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure: return true;
    default: return false;
  }
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const std::string said = std::string(what) + ": " + cudaGetErrorString(status);
  if (status == cudaErrorMemoryAllocation) throw Error(ExitCode::out_of_memory, said);
  if (is_fault(status))
    throw Error(ExitCode::internal,
                said +
                    "; a kernel failed: a fault of grist or of the GPU, which "
                    "scripts/gpu_check.sh tells apart; checkpoints are not touched by it");
  throw Error(ExitCode::device_unavailable, said);
}

}  // namespace grist::cuda
