#pragma once
// For the emulation's own tests: kernels started without the backend, device arrays, and runs under
// every order.
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <grist_ptx.cuh>

#include <string>
#include <utility>
#include <vector>

#include "emulation/control.h"

namespace grist::emu {

template <class... P, class... A>
cudaError_t start(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                  A&&... arguments) {
  if (shared_bytes > 48 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(shared_bytes));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...);
}

// The report of a kernel that must fail.
template <class... P, class... A>
std::string report_of(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                      A&&... arguments) {
  const cudaError_t status =
      start(kernel, grid, block, shared_bytes, std::forward<A>(arguments)...);
  EXPECT_NE(status, cudaSuccess) << "the kernel should have failed";
  return take_report();
}
#define EXPECT_REPORT(report, words) \
  EXPECT_NE((report).find(words), std::string::npos) << "the report is: " << (report)

template <class T> class DeviceArray {
 public:
  explicit DeviceArray(std::size_t n) : n_(n) {
    void* p = nullptr;
    EXPECT_EQ(cudaMalloc(&p, n * sizeof(T)), cudaSuccess);
    p_ = static_cast<T*>(p);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(p_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  ~DeviceArray() { cudaFree(p_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* get() const { return p_; }
  std::vector<T> host() const {
    std::vector<T> out(n_);
    EXPECT_EQ(cudaMemcpy(out.data(), p_, n_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return out;
  }

 private:
  T* p_ = nullptr;
  std::size_t n_ = 0;
};

// Blocks of a warp on it.
class Stream {
 public:
  Stream() { cudaStreamCreateWithFlags(&s_, cudaStreamNonBlocking); }
  ~Stream() { cudaStreamDestroy(s_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return s_; }  // NOLINT: used as one
  template <class... P, class... A> void run(void (*kernel)(P...), A&&... arguments) const {
    EXPECT_EQ(try_to_run(kernel, std::forward<A>(arguments)...), cudaSuccess);
  }
  template <class... P, class... A>
  cudaError_t try_to_run(void (*kernel)(P...), A&&... arguments) const {
    cudaLaunchConfig_t config = {};
    config.gridDim = 1;
    config.blockDim = 32;
    config.stream = s_;
    return cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...);
  }

 private:
  cudaStream_t s_ = nullptr;
};

inline std::vector<Options> all_options() {
  std::vector<Options> all;
  for (int order = 0; order < 5; ++order) {
    for (int async = 0; async < 3; ++async) {
      Options o;
      o.order = static_cast<Order>(order);
      o.async = static_cast<Async>(async);
      o.seed = static_cast<std::uint64_t>(10 * order + async);
      all.push_back(o);
    }
  }
  return all;
}

// In how many of the ways of all_options() does right() hold?
template <class F> int count_right(F&& right) {
  int count = 0;
  for (const Options& o : all_options()) {
    set_options(o);
    count += right() ? 1 : 0;
  }
  set_options({});
  return count;
}
template <class F> void expect_right_in_all(F&& right) {
  EXPECT_EQ(count_right(right), static_cast<int>(all_options().size())) << take_report();
}
template <class F> void expect_wrong_in_some(F&& right) {
  EXPECT_LT(count_right(right), static_cast<int>(all_options().size()));
}

}  // namespace grist::emu
