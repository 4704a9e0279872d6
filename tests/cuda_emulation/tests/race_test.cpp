// The race checker finds what nothing orders, in one run of one order, and nothing in right
// kernels.
#include "emulated.h"

namespace grist::emu {
namespace {

template <bool kBarrier> __global__ void exchange_kernel(int* out) {
  __shared__ int s[64];
  s[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = s[63 - threadIdx.x];
}

TEST(Races, BetweenThreadsOfABlock) {
  const DeviceArray<int> out(64);
  EXPECT_EQ(start(exchange_kernel<true>, 1, 64, 0, out.get()), cudaSuccess) << take_report();
  const std::string report = report_of(exchange_kernel<false>, 1, 64, 0, out.get());
  EXPECT_REPORT(report, "a race");
  EXPECT_REPORT(report, "race_test.cpp:");
}

// A second round overwrites what others may still read.
template <bool kBarrier> __global__ void rounds_kernel(int* out) {
  __shared__ int s[64];
  int sum = 0;
  for (int i = 0; i < 3; ++i) {
    s[threadIdx.x] = i;
    __syncthreads();
    sum += s[63 - threadIdx.x];
    if (kBarrier) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

TEST(Races, OverwrittenTooEarly) {
  const DeviceArray<int> out(64);
  EXPECT_EQ(start(rounds_kernel<true>, 1, 64, 0, out.get()), cudaSuccess) << take_report();
  EXPECT_REPORT(report_of(rounds_kernel<false>, 1, 64, 0, out.get()), "a race");
}

// Shuffles and lockstep order no memory; __syncwarp does.
template <bool kSync> __global__ void warp_kernel(int* out) {
  __shared__ int s[32];
  s[threadIdx.x] = 1;
  const int sum = __shfl_xor_sync(~0U, 1, 1);
  if (kSync) __syncwarp();
  out[threadIdx.x] = s[threadIdx.x ^ 1U] + sum;
}

TEST(Races, WithinAWarp) {
  const DeviceArray<int> out(32);
  EXPECT_EQ(start(warp_kernel<true>, 1, 32, 0, out.get()), cudaSuccess) << take_report();
  EXPECT_REPORT(report_of(warp_kernel<false>, 1, 32, 0, out.get()), "has written");
}

__global__ void blocks_kernel(int* out, int stride) {
  out[blockIdx.x * stride] = static_cast<int>(blockIdx.x);
}
__global__ void atomic_kernel(unsigned* out) {
  atomicAdd(out, 1);
}

TEST(Races, BetweenBlocks) {
  const DeviceArray<int> out(4);
  for (int launch = 0; launch < 2; ++launch)
    EXPECT_EQ(start(blocks_kernel, 4, 1, 0, out.get(), 1), cudaSuccess) << take_report();
  EXPECT_REPORT(report_of(blocks_kernel, 4, 1, 0, out.get(), 0), "of another block");
  const DeviceArray<unsigned> total(std::vector<unsigned>{0});
  EXPECT_EQ(start(atomic_kernel, 4, 64, 0, total.get()), cudaSuccess) << take_report();
}

template <bool kNarrow> __global__ void narrow_kernel(std::uint16_t* out) {
  if (kNarrow)
    out[threadIdx.x] = 1;
  else
    reinterpret_cast<std::uint32_t*>(out)[threadIdx.x / 2] = 1;
}

TEST(Races, NeighboursOfTwoBytes) {
  const DeviceArray<std::uint16_t> out(64);
  EXPECT_EQ(start(narrow_kernel<true>, 1, 64, 0, out.get()), cudaSuccess) << take_report();
  EXPECT_REPORT(report_of(narrow_kernel<false>, 1, 64, 0, out.get()), "a race");
}

// Copies 64 numbers by cp.async and reads another thread's.
template <bool kWait, bool kBarrier> __global__ void copy_kernel(int* out, const int* in) {
  __shared__ __align__(16) int s[64 * 4];
  ptx::cp_async_16(s + 4 * threadIdx.x, in + 4 * threadIdx.x);
  ptx::cp_async_commit();
  if (kWait) ptx::cp_async_wait<0>();
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = s[4 * (63 - threadIdx.x)];
  ptx::cp_async_wait<0>();
}

TEST(Races, AsynchronousCopies) {
  Options lazy;
  lazy.async = Async::lazy;
  set_options(lazy);
  const DeviceArray<int> in(std::vector<int>(256, 3));
  const DeviceArray<int> out(64);
  EXPECT_EQ(start(copy_kernel<true, true>, 1, 64, 0, out.get(), in.get()), cudaSuccess)
      << take_report();
  EXPECT_REPORT(report_of(copy_kernel<false, true>, 1, 64, 0, out.get(), in.get()),
                "asynchronous copy");
  EXPECT_REPORT(report_of(copy_kernel<true, false>, 1, 64, 0, out.get(), in.get()), "a race");
  set_options({});
}

// Two warps hand a buffer to two others through named barriers.
__global__ void named_kernel(int* out) {
  __shared__ int s[64];
  const unsigned t = threadIdx.x % 64;
  int sum = 0;
  for (int i = 0; i < 3; ++i) {
    if (threadIdx.x < 64) {
      if (i > 0) ptx::named_barrier_sync(2, 128);
      s[t] = i;
      ptx::named_barrier_arrive(1, 128);
    } else {
      ptx::named_barrier_sync(1, 128);
      sum += s[63 - t];
      if (i < 2) ptx::named_barrier_arrive(2, 128);
    }
  }
  if (threadIdx.x >= 64) out[t] = sum;
}

TEST(Races, NamedBarriers) {
  const DeviceArray<int> out(64);
  EXPECT_EQ(start(named_kernel, 1, 128, 0, out.get()), cudaSuccess) << take_report();
}

}  // namespace
}  // namespace grist::emu
