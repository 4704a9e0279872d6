// What the race checker knows of proxies and of wgmma's registers: memory written by ordinary
// stores and used by the TMA or wgmma without the fence between, and registers used without theirs.
#include "sm90.h"

namespace grist::emu {
namespace {

struct alignas(1024) Memory {
  __nv_bfloat16 a[64 * 64], b[64 * 64];
  ptx::Barrier full;
};

class Proxies : public ::testing::Test {
 public:
  Proxies() {
    Options lazy;
    lazy.async = Async::lazy;
    set_options(lazy);
  }
  ~Proxies() override { set_options({}); }
  Proxies(const Proxies&) = delete;
  Proxies& operator=(const Proxies&) = delete;
};

enum class Fence { by_writers, none, before_stores, by_reader };

template <Fence kFence> __device__ void write_box(__nv_bfloat16* box) {
  if (kFence == Fence::before_stores) ptx::fence_async_proxy();
  for (int i = static_cast<int>(threadIdx.x); i < 64 * 64; i += 128) box[i] = __float2bfloat16(1);
  if (kFence == Fence::by_writers) ptx::fence_async_proxy();
  __syncthreads();
  if (kFence == Fence::by_reader && threadIdx.x == 0) ptx::fence_async_proxy();
}

// ---- ordinary stores, then the TMA or wgmma -----------------------------------------------------

template <Fence kFence> __global__ void store_kernel(const __grid_constant__ CUtensorMap map) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  write_box<kFence>(s.a);
  if (threadIdx.x == 0) {
    ptx::tma_store_2d(&map, s.a, 0, 0);
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
  }
}

TEST_F(Proxies, StoresReadByATmaStore) {
  const DeviceArray<__nv_bfloat16> x(64 * 64);
  const CUtensorMap map = map_of(x.get(), {64, 64}, 64);
  EXPECT_EQ(start(store_kernel<Fence::by_writers>, 1, 128, sizeof(Memory), map), cudaSuccess)
      << take_report();
  const std::string report = report_of(store_kernel<Fence::none>, 1, 128, sizeof(Memory), map);
  EXPECT_REPORT(report, "no fence.proxy.async");
  EXPECT_REPORT(report, "write_box");
  EXPECT_REPORT(report_of(store_kernel<Fence::before_stores>, 1, 128, sizeof(Memory), map),
                "no fence.proxy.async");
  EXPECT_REPORT(report_of(store_kernel<Fence::by_reader>, 1, 128, sizeof(Memory), map),
                "no fence.proxy.async");
}

template <Fence kFence> __global__ void product_kernel(float* d) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  write_box<Fence::by_writers>(s.a);
  write_box<kFence>(s.b);
  float sums[32];
  ptx::wgmma_fence();
  ptx::wgmma<64, 0, 1>(sums, ptx::swizzled_matrix(s.a, 1024, 0), ptx::swizzled_matrix(s.b, 1024, 0),
                       false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  d[threadIdx.x] = sums[0];
}

TEST_F(Proxies, StoresReadByWgmma) {
  const DeviceArray<float> d(128);
  EXPECT_EQ(start(product_kernel<Fence::by_writers>, 1, 128, sizeof(Memory), d.get()), cudaSuccess)
      << take_report();
  EXPECT_EQ(d.host(), std::vector<float>(128, 16));
  EXPECT_REPORT(report_of(product_kernel<Fence::none>, 1, 128, sizeof(Memory), d.get()),
                "no fence.proxy.async");
}

// What the TMA reads may change after the wait.
template <bool kEarly> __global__ void overwrite_kernel(const __grid_constant__ CUtensorMap map) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  write_box<Fence::by_writers>(s.a);
  if (threadIdx.x != 0) return;
  ptx::tma_store_2d(&map, s.a, 0, 0);
  ptx::bulk_commit();
  if (kEarly) s.a[5] = __float2bfloat16(2);
  ptx::bulk_wait_read<0>();
  s.a[5] = __float2bfloat16(2);
}

TEST_F(Proxies, StoresWhileATmaStoreReads) {
  const DeviceArray<__nv_bfloat16> x(64 * 64);
  const CUtensorMap map = map_of(x.get(), {64, 64}, 64);
  EXPECT_EQ(start(overwrite_kernel<false>, 1, 128, sizeof(Memory), map), cudaSuccess)
      << take_report();
  EXPECT_REPORT(report_of(overwrite_kernel<true>, 1, 128, sizeof(Memory), map), "at this time");
}

// cp.async writes as the thread itself does, when the thread has waited.
template <bool kWaitFirst>
__global__ void copied_kernel(const __grid_constant__ CUtensorMap map, const __nv_bfloat16* x) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  for (int i = static_cast<int>(threadIdx.x) * 8; i < 64 * 64; i += 8 * 128)
    ptx::cp_async_16(s.a + i, x + i);
  ptx::cp_async_commit();
  if (!kWaitFirst) ptx::fence_async_proxy();
  ptx::cp_async_wait<0>();
  if (kWaitFirst) ptx::fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::tma_store_2d(&map, s.a, 0, 0);
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
  }
}

TEST_F(Proxies, CopiesReadByATmaStore) {
  const DeviceArray<__nv_bfloat16> x(Bf16s(64 * 64)), y(64 * 64);
  const CUtensorMap map = map_of(y.get(), {64, 64}, 64);
  EXPECT_EQ(start(copied_kernel<true>, 1, 128, sizeof(Memory), map, x.get()), cudaSuccess)
      << take_report();
  const std::string report = report_of(copied_kernel<false>, 1, 128, sizeof(Memory), map, x.get());
  EXPECT_REPORT(report, "no fence.proxy.async");
  EXPECT_REPORT(report, "before: ");
}

// ---- the TMA over ordinary accesses, and the other way round ------------------------------------

enum class Before { load, fenced_stores, stores, reads };

// A TMA load into memory that threads have used; then they read it and write it.
template <Before kBefore>
__global__ void load_kernel(const __grid_constant__ CUtensorMap map, __nv_bfloat16* out) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  if (threadIdx.x == 0) {
    ptx::barrier_init(&s.full, 1);
    ptx::fence_barrier_init();
  }
  write_box<kBefore == Before::stores ? Fence::none : Fence::by_writers>(s.a);
  if (kBefore == Before::reads) out[threadIdx.x] = s.a[threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::barrier_arrive_expect(&s.full, sizeof s.a);
    ptx::tma_load_2d(s.a, &map, &s.full, 0, 0);
  }
  ptx::barrier_wait(&s.full, 0);
  out[threadIdx.x] = s.a[threadIdx.x];
  __syncthreads();
  s.a[threadIdx.x] = out[threadIdx.x];
}

TEST_F(Proxies, LoadsOverwriteStores) {
  const DeviceArray<__nv_bfloat16> x(Bf16s(64 * 64)), out(128);
  const CUtensorMap map = map_of(x.get(), {64, 64}, 64);
  const auto run = [&](auto kernel) {
    return start(kernel, 1, 128, sizeof(Memory), map, out.get());
  };
  EXPECT_EQ(run(load_kernel<Before::fenced_stores>), cudaSuccess) << take_report();
  EXPECT_EQ(run(load_kernel<Before::reads>), cudaSuccess) << take_report();
  EXPECT_REPORT(report_of(load_kernel<Before::stores>, 1, 128, sizeof(Memory), map, out.get()),
                "no fence.proxy.async");
}

// ---- registers of wgmma -------------------------------------------------------------------------

enum class Touch { fenced, after_fence, between_products, before_wait };

template <Touch kTouch> __global__ void registers_kernel(float* d) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  write_box<Fence::by_writers>(s.a);
  const std::uint64_t a = ptx::swizzled_matrix(s.a, 1024, 0);
  float sums[32];
  if (kTouch == Touch::after_fence) ptx::wgmma_fence();
  for (float& sum : sums) sum = d[threadIdx.x];
  if (kTouch != Touch::after_fence) ptx::wgmma_fence();
  ptx::wgmma<64, 0, 0>(sums, a, a, true);
  ptx::wgmma_commit();
  if (kTouch == Touch::before_wait) d[threadIdx.x] = sums[3];
  ptx::wgmma_wait<0>();
  if (kTouch == Touch::between_products) d[threadIdx.x] = sums[3];
  ptx::wgmma<64, 0, 0>(sums, a, a, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  d[threadIdx.x] = sums[3];
}

TEST_F(Proxies, RegistersNeedTheirFence) {
  const DeviceArray<float> d(std::vector<float>(128, 1));
  EXPECT_EQ(start(registers_kernel<Touch::fenced>, 1, 128, sizeof(Memory), d.get()), cudaSuccess)
      << take_report();
  EXPECT_EQ(d.host(), std::vector<float>(128, 33));
  EXPECT_REPORT(report_of(registers_kernel<Touch::after_fence>, 1, 128, sizeof(Memory), d.get()),
                "no wgmma.fence between");
  EXPECT_REPORT(
      report_of(registers_kernel<Touch::between_products>, 1, 128, sizeof(Memory), d.get()),
      "no wgmma.fence between");
  const std::string report =
      report_of(registers_kernel<Touch::before_wait>, 1, 128, sizeof(Memory), d.get());
  EXPECT_REPORT(report, "before the wait for it");
  EXPECT_REPORT(report, "proxy_test.cpp:");
}

// The wait for a product orders what the product reads, and nothing that threads do.
template <bool kBarrier> __global__ void wait_kernel(float* d) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  write_box<Fence::by_writers>(s.a);
  const std::uint64_t a = ptx::swizzled_matrix(s.a, 1024, 0);
  s.b[threadIdx.x] = __float2bfloat16(1);
  float sums[32];
  ptx::wgmma_fence();
  ptx::wgmma<64, 0, 0>(sums, a, a, false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  if (kBarrier) __syncthreads();
  d[threadIdx.x] = sums[0] + __bfloat162float(s.b[127 - threadIdx.x]);
}

TEST_F(Proxies, TheWaitForAProductIsNoBarrier) {
  const DeviceArray<float> d(128);
  EXPECT_EQ(start(wait_kernel<true>, 1, 128, sizeof(Memory), d.get()), cudaSuccess)
      << take_report();
  EXPECT_REPORT(report_of(wait_kernel<false>, 1, 128, sizeof(Memory), d.get()), "a race");
}

// The left operand in registers, which two products read.
template <Touch kTouch> __global__ void left_kernel(float* d) {
  GRIST_DYNAMIC_SHARED(Memory, s);
  write_box<Fence::by_writers>(s.a);
  const std::uint64_t b = ptx::swizzled_matrix(s.a, 1024, 0);
  constexpr std::uint32_t kOnes = 0x3f803f80;
  float sums[2][32];
  std::uint32_t left[4];
  if (kTouch == Touch::after_fence) ptx::wgmma_fence();
  for (std::uint32_t& pair : left) pair = kOnes;
  if (kTouch != Touch::after_fence) ptx::wgmma_fence();
  for (auto& half : sums) {
    ptx::wgmma_registers<64, 0>(half, left, b, false);
    ptx::wgmma_commit();
  }
  ptx::wgmma_wait<1>();
  if (kTouch == Touch::before_wait) left[2] = 0;
  ptx::wgmma_wait<0>();
  d[threadIdx.x] = sums[0][3] + sums[1][3];
}

TEST_F(Proxies, RegistersOfTheLeftOperandToo) {
  const DeviceArray<float> d(128);
  EXPECT_EQ(start(left_kernel<Touch::fenced>, 1, 128, sizeof(Memory), d.get()), cudaSuccess)
      << take_report();
  EXPECT_EQ(d.host(), std::vector<float>(128, 32));
  EXPECT_REPORT(report_of(left_kernel<Touch::after_fence>, 1, 128, sizeof(Memory), d.get()),
                "no wgmma.fence between");
  EXPECT_REPORT(report_of(left_kernel<Touch::before_wait>, 1, 128, sizeof(Memory), d.get()),
                "before the wait for it");
}

}  // namespace
}  // namespace grist::emu
