// Streams whose work is done late and in a random order find what waits for nothing.
#include "emulated.h"

namespace grist::emu {
namespace {

using Ints = std::vector<int>;

__global__ void add_kernel(int* x, int value) {
  x[threadIdx.x] += value;
}
__global__ void copy_kernel(int* to, const int* from) {
  to[threadIdx.x] = from[threadIdx.x];
}

__global__ void lone_kernel() {
  ptx::named_barrier_sync(1, 64);  // of which 32 are there
}

bool hand_over(std::uint64_t seed, bool with_event) {
  Options o;
  o.streams = Streams::deferred;
  o.seed = seed;
  set_options(o);
  bool right = false;
  {
    const Stream first;
    const Stream second;
    const DeviceArray<int> x(std::vector<int>(32, 1));
    const DeviceArray<int> y(std::vector<int>(32, 0));
    for (int i = 0; i < 3; ++i) first.run(add_kernel, x.get(), 2);
    if (with_event) {
      cudaEvent_t e = nullptr;
      cudaEventCreate(&e);
      cudaEventRecord(e, first);
      cudaStreamWaitEvent(second, e, 0);
      cudaEventDestroy(e);
    }
    second.run(copy_kernel, y.get(), x.get());
    EXPECT_EQ(cudaStreamSynchronize(second), cudaSuccess);
    right = y.host() == std::vector<int>(32, 7);
  }
  set_options({});
  return right;
}

// Run once more with GRIST_EMU_STREAMS=1 (CMakeLists.txt).
TEST(Streams, TheEnvironmentMakesWorkLate) {
  const Stream stream;
  const DeviceArray<int> x(Ints(32, 1));
  for (int i = 0; i < 3; ++i) stream.run(add_kernel, x.get(), 2);
  const bool late = options().streams == Streams::deferred;
  EXPECT_EQ(cudaStreamQuery(stream), late ? cudaErrorNotReady : cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(x.host(), Ints(32, 7));
}

TEST(Streams, EventsOrderThem) {
  for (std::uint64_t seed = 0; seed < 8; ++seed) EXPECT_TRUE(hand_over(seed, true)) << seed;
}
TEST(Streams, FindsAMissingEvent) {
  int right = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) right += hand_over(seed, false) ? 1 : 0;
  EXPECT_LT(right, 8);
}

TEST(Streams, DestroyingOneDoesNotWaitForItsWork) {
  Options o;
  o.streams = Streams::deferred;
  set_options(o);
  {
    const DeviceArray<int> x(Ints(32, 1));
    cudaEvent_t done = nullptr;
    cudaEventCreate(&done);
    {
      const Stream stream;
      stream.run(add_kernel, x.get(), 2);
      cudaEventRecord(done, stream);
    }
    EXPECT_EQ(cudaEventQuery(done), cudaErrorNotReady);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaEventQuery(done), cudaSuccess);
    EXPECT_EQ(x.host(), Ints(32, 3));
    cudaEventDestroy(done);
  }
  set_options({});
}

TEST(Streams, PageableMemoryIsReadInTheCallAndPinnedLater) {
  Options o;
  o.streams = Streams::deferred;
  set_options(o);
  {
    const Stream stream;
    const DeviceArray<int> x(1);
    const DeviceArray<int> y(1);
    int pageable = 1;
    void* p = nullptr;
    ASSERT_EQ(cudaMallocHost(&p, sizeof(int)), cudaSuccess);
    auto* pinned = static_cast<int*>(p);
    *pinned = 1;
    cudaMemcpyAsync(x.get(), &pageable, sizeof(int), cudaMemcpyHostToDevice, stream);
    cudaMemcpyAsync(y.get(), pinned, sizeof(int), cudaMemcpyHostToDevice, stream);
    pageable = *pinned = 2;
    cudaStreamSynchronize(stream);
    EXPECT_EQ(x.host()[0], 1);
    EXPECT_EQ(y.host()[0], 2) << "a pinned source that changed before the copy should be seen";
    cudaFreeHost(p);
  }
  set_options({});
}

TEST(Streams, ErrorsOfLateWorkAreTold) {
  Options o;
  o.streams = Streams::deferred;
  set_options(o);
  {
    const Stream stream;
    stream.run(lone_kernel);
    EXPECT_NE(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    take_report();
  }
  set_options({});
}

TEST(Copies, AreCheckedAgainstAllocations) {
  const DeviceArray<int> x(10);
  std::vector<int> host(11);
  EXPECT_NE(cudaMemcpy(x.get(), host.data(), 44, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_REPORT(take_report(), "44 bytes at offset 0 of an allocation of 40");
  EXPECT_NE(cudaMemcpy(host.data(), x.get(), 40, cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_REPORT(take_report(), "destination of a copy is not device memory");
  EXPECT_NE(cudaMemset(host.data(), 0, 4), cudaSuccess);
  take_report();
  EXPECT_NE(cudaFree(x.get() + 1), cudaSuccess);
  take_report();
}

}  // namespace
}  // namespace grist::emu
