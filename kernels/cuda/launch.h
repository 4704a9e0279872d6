#pragma once
// Starting kernels and checking what the CUDA runtime says. Every .cu file uses launch(), never
// <<<>>>, so that the same sources run on the CPU (docs/cuda.md).
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "grist/core/context.h"

namespace grist::cuda {

// Throws Error{out_of_memory, internal (a kernel failed) or device_unavailable}: "<what>: <CUDA's
// words>".
void check(cudaError_t status, const char* what);

inline cudaStream_t stream_of(const Context& ctx) {
  return reinterpret_cast<cudaStream_t>(ctx.stream);
}

// kernel<<<grid, block, smem, stream>>>(arguments...). Template kernels need their template
// arguments spelled out. A grid without blocks starts nothing. `smem` above 48 KiB is allowed as
// the device permits.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t smem,
            cudaStream_t stream, Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (smem > 48 * 1024) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(smem)),
          "shared memory of a kernel");
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = smem;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...),
        "launch of a kernel");
}

// Blocks for n elements, `per_block` each.
inline unsigned blocks_for(std::int64_t n, std::int64_t per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

// What kernels choose their variant and grid by; of the device that enable() took.
struct DeviceInfo {
  int compute_capability = 0;  // 80, 90, ...
  int multiprocessors = 0;
  std::size_t shared_memory_per_block = 0;  // bytes, opt-in maximum
};
const DeviceInfo& device_info();
// For tests: kernels are chosen as on another device. Returns what was there before.
int override_compute_capability(int capability);

}  // namespace grist::cuda
