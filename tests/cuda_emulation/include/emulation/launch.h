#pragma once
// Launches: the official C++ call, and function attributes.
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <tuple>
#include <utility>

namespace grist::emu {

// `body` is what one thread runs. The kernel's address is its identity.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> body);

// An argument's bytes may hold no pointer to the host's own memory.
cudaError_t check_argument(const void* argument, std::size_t bytes);
template <class T> cudaError_t check_argument(T& copy) {
#if __has_builtin(__builtin_clear_padding)
  __builtin_clear_padding(&copy);  // where anything may lie
  return check_argument(&copy, sizeof copy);
#else
  return cudaSuccess;
#endif
}

}  // namespace grist::emu

// The toolkit's template of this name would need the registered kernels of nvcc.
template <class... Parameters, class... Arguments>
cudaError_t grist_emulated_launch(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                                  Arguments&&... arguments) {
  std::tuple<std::decay_t<Parameters>...> copies(std::forward<Arguments>(arguments)...);
  cudaError_t status = cudaSuccess;
  const auto check = [&status](auto& copy) {
    if (status == cudaSuccess) status = grist::emu::check_argument(copy);
  };
  std::apply([&check](auto&... copy) { (check(copy), ...); }, copies);
  if (status != cudaSuccess) return status;
  return grist::emu::launch(*config, reinterpret_cast<const void*>(kernel),
                            [kernel, copies] { std::apply(kernel, copies); });
}
#define cudaLaunchKernelEx grist_emulated_launch

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  return ::cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel* kernel, int threads,
                                                          std::size_t shared_bytes) {
  return ::cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      blocks, reinterpret_cast<const void*>(kernel), threads, shared_bytes);
}
