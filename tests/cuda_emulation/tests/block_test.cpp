#include "emulated.h"

namespace grist::emu {
namespace {

__global__ void index_kernel(unsigned* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[i] = i;
}

TEST(Block, EveryThreadOnce) {
  const dim3 grid(3, 5, 2);
  const dim3 block(5, 3, 4);
  expect_right_in_all([&] {
    DeviceArray<unsigned> out(30 * 60);
    if (start(index_kernel, grid, block, 0, out.get()) != cudaSuccess) return false;
    const std::vector<unsigned> got = out.host();
    for (unsigned i = 0; i < got.size(); ++i) {
      if (got[i] != i) return false;
    }
    return true;
  });
}

// Reverses 256 numbers through shared memory, many times.
template <bool kBarrier> __global__ void reverse_kernel(int* x) {
  __shared__ int s[256];
  const unsigned t = threadIdx.x;
  for (int round = 0; round < 5; ++round) {
    s[t] = x[256 * blockIdx.x + t];
    __syncthreads();
    x[256 * blockIdx.x + t] = s[255 - t];
    if (kBarrier) __syncthreads();
  }
}

template <bool kBarrier> bool reverses() {
  std::vector<int> values(1024);
  for (int i = 0; i < 1024; ++i) values[static_cast<std::size_t>(i)] = i;
  DeviceArray<int> x(values);
  if (start(reverse_kernel<kBarrier>, 4, 256, 0, x.get()) != cudaSuccess) return false;
  for (int i = 0; i < 1024; ++i)
    values[static_cast<std::size_t>(i)] = i / 256 * 256 + 255 - i % 256;
  return x.host() == values;
}

TEST(Block, BarriersOrderSharedMemory) {
  expect_right_in_all(reverses<true>);
}
TEST(Block, FindsAMissingBarrier) {
  expect_wrong_in_some(reverses<false>);
}

__global__ void sums_kernel(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0);
  const int any = __syncthreads_or(t == 77);
  const int all = __syncthreads_and(t != 77);
  out[t] = 4 * count + 2 * any + all;
}

TEST(Block, SumsOfBarriers) {
  expect_right_in_all([] {
    DeviceArray<int> out(100);
    if (start(sums_kernel, 1, 100, 0, out.get()) != cudaSuccess) return false;
    return out.host() == std::vector<int>(100, 4 * 34 + 2);
  });
}

struct Ring {
  int slots[2][64];
};

// Two warps fill slots that two others add up; named barriers say full and empty.
__global__ void ring_kernel(int* out) {
  GRIST_DYNAMIC_SHARED(Ring, ring);
  const int t = static_cast<int>(threadIdx.x);
  constexpr int kRounds = 7;
  if (t < 64) {
    for (int i = 0; i < kRounds; ++i) {
      const int slot = i % 2;
      if (i >= 2) ptx::named_barrier_sync(3 + slot, 128);
      ring.slots[slot][t] = 100 * i + t;
      ptx::named_barrier_arrive(1 + slot, 128);
    }
  } else {
    int sum = 0;
    for (int i = 0; i < kRounds; ++i) {
      const int slot = i % 2;
      ptx::named_barrier_sync(1 + slot, 128);
      sum += ring.slots[slot][127 - t];
      if (i + 2 < kRounds) ptx::named_barrier_arrive(3 + slot, 128);
    }
    out[t - 64] = sum;
  }
}

TEST(Block, NamedBarriers) {
  std::vector<int> want;
  for (int t = 0; t < 64; ++t) want.push_back(2100 + 7 * (63 - t));
  expect_right_in_all([&] {
    DeviceArray<int> out(64);
    return start(ring_kernel, 1, 128, sizeof(Ring), out.get()) == cudaSuccess && out.host() == want;
  });
}

__global__ void count_kernel(unsigned* total, int* highest) {
  atomicAdd(total, 1);
  atomicMax(highest, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
}

TEST(Block, Atomics) {
  expect_right_in_all([] {
    DeviceArray<unsigned> total(std::vector<unsigned>{0});
    DeviceArray<int> highest(std::vector<int>{-1});
    if (start(count_kernel, 40, 96, 0, total.get(), highest.get()) != cudaSuccess) return false;
    return total.host()[0] == 3840 && highest.host()[0] == 3839;
  });
}

// One warp waits for a flag that another sets.
__global__ void flag_kernel(volatile int* flag, int* out) {
  if (threadIdx.x >= 32) {
    if (threadIdx.x == 40) *flag = 1;
    return;
  }
  while (*flag == 0) __nanosleep(20);
  out[threadIdx.x] = 1;
}

TEST(Block, WaitingLoops) {
  expect_right_in_all([] {
    DeviceArray<int> flag(std::vector<int>{0});
    DeviceArray<int> out(32);
    return start(flag_kernel, 1, 64, 0, flag.get(), out.get()) == cudaSuccess &&
           out.host() == std::vector<int>(32, 1);
  });
}

}  // namespace
}  // namespace grist::emu
