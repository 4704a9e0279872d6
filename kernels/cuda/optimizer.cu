// Element-wise updates and reductions of fixed shape (ops/optimizer.h).
#include "device.cuh"
#include "kernels/backends.h"
#include "launch.h"

namespace grist::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void fill_kernel(float* x, float value, std::int64_t n) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) x[i] = value;
}

}  // namespace

void fill(const Context& ctx, const ops::Fill& a) {
  const std::int64_t n = a.x.numel();
  launch(fill_kernel, blocks_for(n, kThreads), kThreads, 0, stream_of(ctx), a.x.as<float>(),
         a.value, n);
}

}  // namespace grist::cuda
