// Mistakes that a GPU may or may not punish: each must be found and named.
#include "emulated.h"

namespace grist::emu {
namespace {

__global__ void exited_kernel() {
  if (threadIdx.x == 3) return;
  __shfl_xor_sync(~0U, 1, 1);
}
__global__ void foreign_mask_kernel() {
  __ballot_sync(0x0000ffffU, 1);
}
__global__ void two_lines_kernel(int* out) {
  if (threadIdx.x < 16)
    out[0] = __shfl_xor_sync(~0U, 1, 1);
  else
    out[1] = __shfl_xor_sync(~0U, 2, 1);
}
__global__ void divergent_barrier_kernel() {
  if (threadIdx.x % 2 == 0)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void half_barrier_kernel() {
  if (threadIdx.x < 48) ptx::named_barrier_sync(1, 64);
}

TEST(Diagnostics, Collectives) {
  EXPECT_REPORT(report_of(exited_kernel, 1, 32, 0), "lane");
  EXPECT_REPORT(report_of(foreign_mask_kernel, 1, 32, 0), "lacks the caller's own lane");
  DeviceArray<int> out(2);
  EXPECT_REPORT(report_of(two_lines_kernel, 1, 32, 0, out.get()), "another collective");
}

TEST(Diagnostics, Barriers) {
  EXPECT_REPORT(report_of(divergent_barrier_kernel, 1, 64, 0), "divergent barrier");
  const std::string report = report_of(half_barrier_kernel, 1, 64, 0);
  EXPECT_REPORT(report, "deadlock");
  EXPECT_REPORT(report, "diagnostics_test.cpp:");
  EXPECT_REPORT(report, "threads 0 to 47: a named barrier");
}

__global__ void wait_forever_kernel() {
  if (threadIdx.x == 0) {
    for (;;) pause(Where::here());
  }
}

TEST(Diagnostics, DeadlockOfAPollingThread) {
  EXPECT_REPORT(report_of(wait_forever_kernel, 1, 64, 0), "deadlock");
}

__global__ void store_kernel(float* x, int i) {
  x[i] = 1.0F;
}

TEST(Diagnostics, AccessesOutsideDeviceMemory) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer ends the process";
#endif
  DeviceArray<float> x(64);  // 256 bytes
  EXPECT_EQ(start(store_kernel, 1, 1, 0, x.get(), 63), cudaSuccess);
  EXPECT_REPORT(report_of(store_kernel, 1, 1, 0, x.get(), 64), "allocation of 256 bytes");
  EXPECT_REPORT(report_of(store_kernel, 1, 1, 0, nullptr, 0), "address 0");
  float* freed = nullptr;
  {
    DeviceArray<float> gone(64);
    freed = gone.get();
  }
  EXPECT_REPORT(report_of(store_kernel, 1, 1, 0, freed, 0), "near no allocation");
  EXPECT_EQ(start(store_kernel, 1, 1, 0, x.get(), 5), cudaSuccess) << "the emulation goes on";
}

TEST(Diagnostics, WriteBehindAnAllocationThatEndsEarly) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer ends the process";
#endif
  void* p = nullptr;
  ASSERT_EQ(cudaMalloc(&p, 40), cudaSuccess);
  EXPECT_EQ(start(store_kernel, 1, 1, 0, static_cast<float*>(p), 10), cudaSuccess);
  EXPECT_NE(cudaFree(p), cudaSuccess);
  EXPECT_REPORT(take_report(), "past the end of an allocation");
}

struct Small {
  float x[8];
};
__global__ void shared_kernel(int i) {
  GRIST_DYNAMIC_SHARED(Small, s);
  volatile float* x = s.x;
  x[i] = 1.0F;
}

TEST(Diagnostics, SharedMemory) {
  EXPECT_REPORT(report_of(shared_kernel, 1, 1, 16, 0), "uses 32 bytes of dynamic shared memory");
  EXPECT_EQ(start(shared_kernel, 1, 1, sizeof(Small), 7), cudaSuccess);
  EXPECT_REPORT(report_of(shared_kernel, 1, 1, sizeof(Small), 8), "past the end of dynamic shared");
#ifndef __SANITIZE_ADDRESS__
  EXPECT_REPORT(report_of(shared_kernel, 1, 1, sizeof(Small), 256), "outside dynamic shared");
#endif
}

__global__ void unwritten_kernel(float* x, int n) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) x[i] = 1.0F;
}

TEST(Diagnostics, UnwrittenMemoryIsNan) {
  DeviceArray<float> x(64);
  EXPECT_EQ(start(unwritten_kernel, 1, 64, 0, x.get(), 63), cudaSuccess);
  EXPECT_EQ(x.host()[62], 1.0F);
  EXPECT_TRUE(std::isnan(x.host()[63]));
}

int deep(volatile int* x, int n) {  // NOLINT: its recursion is the point
  return n == 0 ? *x : deep(x, n - 1) + *x;
}
__global__ void deep_kernel(int* x, int n) {
  x[1] = deep(x, n);
}
__global__ void divide_kernel(int* x) {
  x[0] = x[1] / x[0];
}

TEST(Diagnostics, DivisionByZeroAndFullStack) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer ends the process";
#endif
  DeviceArray<int> x(std::vector<int>{0, 0});
  EXPECT_EQ(start(deep_kernel, 1, 1, 0, x.get(), 10), cudaSuccess);
  EXPECT_REPORT(report_of(deep_kernel, 1, 1, 0, x.get(), 100000), "the stack is full");
  EXPECT_REPORT(report_of(divide_kernel, 1, 1, 0, x.get()), "division by zero");
}

// GRIST_EMU_PROTECT is read once, so a process of its own.
TEST(DiagnosticsDeathTest, TheHostTouchesDeviceMemory) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer has words of its own";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        setenv("GRIST_EMU_PROTECT", "1", 1);
        const DeviceArray<float> x(std::vector<float>(8, 1.0F));
        if (start(store_kernel, 1, 1, 0, x.get(), 3) != cudaSuccess || x.host()[4] != 1.0F) exit(0);
        static_cast<volatile float*>(x.get())[2] = 1.0F;
      },
      "the host touches device memory");
}

TEST(Diagnostics, Launches) {
  EXPECT_REPORT(report_of(exited_kernel, 1, 2048, 0), "2048 threads");
  cudaLaunchConfig_t config = {};
  config.gridDim = 1;
  config.blockDim = 32;
  config.dynamicSmemBytes = 60 * 1024;
  EXPECT_NE(cudaLaunchKernelEx(&config, wait_forever_kernel), cudaSuccess);
  EXPECT_REPORT(take_report(), "61440 bytes of dynamic shared memory");
  std::vector<float> host(4);
#ifndef __SANITIZE_ADDRESS__
  EXPECT_REPORT(report_of(store_kernel, 1, 1, 0, host.data(), 0), "a pointer to host memory");
#endif
}

}  // namespace
}  // namespace grist::emu
