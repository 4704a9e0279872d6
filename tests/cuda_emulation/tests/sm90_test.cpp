// mbarriers, the TMA and wgmma: boxes by hand, products of every kind of operand, and a small
// pipeline through all of them with its ways to be wrong.
#include <cmath>

#include "sm90.h"

namespace grist::emu {
namespace {

// ---- TMA ----------------------------------------------------------------------------------------

struct alignas(1024) Box {
  __nv_bfloat16 line[16][64];
  ptx::Barrier full;
};

// The box at (x, y, z) of `from` goes to `plain` without the swizzle, and to the same place of
// `to`.
__global__ void box_kernel(const __grid_constant__ CUtensorMap from,
                           const __grid_constant__ CUtensorMap to, __nv_bfloat16* plain, int x,
                           int y, int z) {
  GRIST_DYNAMIC_SHARED(Box, s);
  if (threadIdx.x == 0) {
    ptx::barrier_init(&s.full, 1);
    ptx::fence_barrier_init();
    ptx::barrier_arrive_expect(&s.full, sizeof s.line);
    ptx::tma_load_3d(s.line, &from, &s.full, x, y, z);
  }
  __syncthreads();
  ptx::barrier_wait(&s.full, 0);
  for (int i = static_cast<int>(threadIdx.x); i < 16 * 64; i += 32) {
    const int row = i / 64, chunk = i % 64 / 8 ^ (row % 8);
    plain[i] = s.line[row][chunk * 8 + i % 8];
  }
  if (threadIdx.x == 0) {
    ptx::tma_store_3d(&to, s.line, x, y, z);
    ptx::bulk_commit();
    ptx::bulk_wait<0>();
  }
}

TEST(Tma, BoxesAreZeroOutsideAndStoredInside) {
  constexpr int kColumns = 72, kRows = 20, kOuter = 3, x = 8, y = 10, z = 1;
  const Bf16s values = numbers(kColumns * kRows * kOuter, 5);
  expect_right_in_all([&] {
    const DeviceArray<__nv_bfloat16> from(values), to(Bf16s(values.size())), plain(16 * 64);
    const std::vector<cuuint64_t> extents = {kColumns, kRows, kOuter};
    if (start(box_kernel, 1, 32, sizeof(Box), map_of(from.get(), extents, 16),
              map_of(to.get(), extents, 16), plain.get(), x, y, z) != cudaSuccess)
      return false;
    const Bf16s box = plain.host(), stored = to.host();
    for (int r = 0; r < 16; ++r) {
      for (int c = 0; c < 64; ++c) {
        const bool inside = y + r < kRows && x + c < kColumns;
        const int source = (z * kRows + y + r) * kColumns + x + c;
        if (number(box, r * 64 + c) != (inside ? number(values, source) : 0.0F)) return false;
      }
    }
    for (int i = 0; i < static_cast<int>(values.size()); ++i) {
      const int r = i / kColumns - z * kRows - y, c = i % kColumns - x;
      const bool inside = r >= 0 && r < 10 && c >= 0 && c < 64;
      if (number(stored, i) != (inside ? number(values, i) : 0.0F)) return false;
    }
    return true;
  });
}

TEST(Tma, MapsThatNoDriverTakesAreRefused) {
  const DeviceArray<__nv_bfloat16> x(64 * 16);
  map_of(x.get(), {64, 16}, 16);
  map_of(x.get() + 1, {64, 15}, 16, CUDA_ERROR_INVALID_VALUE);  // not aligned
  map_of(x.get(), {60, 16}, 16, CUDA_ERROR_INVALID_VALUE);      // rows of 120 bytes
  map_of(x.get(), {64, 17}, 16, CUDA_ERROR_INVALID_VALUE);      // past the allocation
  map_of(x.get(), {64, 16}, 257, CUDA_ERROR_INVALID_VALUE);     // too wide a box
}

// ---- wgmma --------------------------------------------------------------------------------------

struct alignas(1024) Operands {
  __nv_bfloat16 a[64 * 64];
  __nv_bfloat16 b[256 * 64];
};

// d (64, N) += a (64, 64) b (N, 64)^T
template <int N, int kMnMajorA, int kMnMajorB>
__global__ void product_kernel(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
  GRIST_DYNAMIC_SHARED(Operands, s);
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < 64 * 64; i += 128) put(s.a, kMnMajorA != 0, i / 64, i % 64, a[i]);
  for (int i = t; i < N * 64; i += 128) put(s.b, kMnMajorB != 0, i / 64, i % 64, b[i]);
  ptx::fence_async_proxy();
  __syncthreads();
  const auto place = [&](int i) {
    return (16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2)) * N + 8 * (i / 4) + 2 * (t % 4) + i % 2;
  };
  float sums[N / 2];
  for (int i = 0; i < N / 2; ++i) sums[i] = d[place(i)];
  ptx::wgmma_fence();
  for (int k = 0; k < 4; ++k) {
    const auto* at_a = s.a + k * (kMnMajorA != 0 ? 16 * 64 : 16);
    const auto* at_b = s.b + k * (kMnMajorB != 0 ? 16 * 64 : 16);
    ptx::wgmma<N, kMnMajorA, kMnMajorB>(sums, ptx::swizzled_matrix(at_a, 1024, 8192),
                                        ptx::swizzled_matrix(at_b, 1024, 8192), true);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i) d[place(i)] = sums[i];
}

template <int N, int kMnMajorA, int kMnMajorB> bool product_is_right() {
  const Bf16s a = numbers(64 * 64, 3), b = numbers(N * 64, 7);
  const DeviceArray<__nv_bfloat16> da(a), db(b);
  const DeviceArray<float> d(std::vector<float>(64 * N, 1.0F));
  if (start(product_kernel<N, kMnMajorA, kMnMajorB>, 1, 128, sizeof(Operands), d.get(), da.get(),
            db.get()) != cudaSuccess)
    return false;
  return is_product(d.host(), a, b, N, 64);
}

TEST(Wgmma, EveryWidthAndMajor) {
  expect_right_in_all(product_is_right<64, 0, 0>);
  EXPECT_TRUE((product_is_right<128, 0, 1>()));
  EXPECT_TRUE((product_is_right<192, 1, 0>()));
  EXPECT_TRUE((product_is_right<256, 1, 1>()));
}

// Ways to touch accumulators at the wrong moment.
enum class Touch { after_wait, no_fence, read_early, written_early };

template <Touch kTouch> __global__ void touch_kernel(float* d) {
  GRIST_DYNAMIC_SHARED(Operands, s);
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < 64 * 64; i += 128) s.a[i] = s.b[i] = __float2bfloat16(1);
  ptx::fence_async_proxy();
  __syncthreads();
  float sums[32];
  if (kTouch != Touch::no_fence) ptx::wgmma_fence();
  ptx::wgmma<64, 0, 0>(sums, ptx::swizzled_matrix(s.a, 1024, 0), ptx::swizzled_matrix(s.b, 1024, 0),
                       false);
  ptx::wgmma_commit();
  if (kTouch == Touch::read_early) d[t] = sums[5];
  if (kTouch == Touch::written_early) sums[5] = 16;
  ptx::wgmma_wait<0>();
  if (kTouch != Touch::read_early) d[t] = sums[5];
}

template <Touch kTouch> bool touch_is_right() {
  const DeviceArray<float> d(128);
  return start(touch_kernel<kTouch>, 1, 128, sizeof(Operands), d.get()) == cudaSuccess &&
         d.host() == std::vector<float>(128, 16);
}

TEST(Wgmma, AccumulatorsTouchedTooEarly) {
  expect_right_in_all(touch_is_right<Touch::after_wait>);
  EXPECT_FALSE(touch_is_right<Touch::no_fence>());
  EXPECT_REPORT(take_report(), "no wgmma.fence");
  expect_wrong_in_some(touch_is_right<Touch::read_early>);
  take_report();
  expect_wrong_in_some(touch_is_right<Touch::written_early>);
  EXPECT_REPORT(take_report(), "written while it ran");
}

// ---- a pipeline ---------------------------------------------------------------------------------

constexpr int kStages = 2, kSteps = 5, kDepth = kSteps * 64;

struct alignas(1024) Ring {
  __nv_bfloat16 a[kStages][64 * 64];
  __nv_bfloat16 b[kStages][64 * 64];
  ptx::Barrier full[kStages], empty[kStages];
};

enum class Bug { none, no_wait, released_early, no_product_wait, missing_load, unannounced_load };

template <Bug kBug> __device__ void multiply_steps(float (&sums)[32], Ring& s) {
  for (int i = 0; i < kSteps; ++i) {
    const int stage = i % kStages;
    const auto parity = static_cast<unsigned>(i / kStages % 2);
    if (kBug != Bug::no_wait) ptx::barrier_wait(&s.full[stage], parity);
    ptx::wgmma_fence();
    for (int k = 0; k < 4; ++k) {
      ptx::wgmma<64, 0, 0>(sums, ptx::swizzled_matrix(s.a[stage] + 16 * k, 1024, 0),
                           ptx::swizzled_matrix(s.b[stage] + 16 * k, 1024, 0), i > 0 || k > 0);
    }
    ptx::wgmma_commit();
    if (kBug == Bug::released_early && threadIdx.x % 32 == 0) ptx::barrier_arrive(&s.empty[stage]);
    ptx::wgmma_wait<(kBug == Bug::no_product_wait ? 1 : 0)>();
    if (kBug != Bug::released_early && threadIdx.x % 32 == 0) ptx::barrier_arrive(&s.empty[stage]);
  }
}

// d (64, 64) = a (64, kDepth) b (64, kDepth)^T
template <Bug kBug>
__global__ void pipeline_kernel(float* d, const __grid_constant__ CUtensorMap a,
                                const __grid_constant__ CUtensorMap b) {
  GRIST_DYNAMIC_SHARED(Ring, s);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      ptx::barrier_init(&s.full[i], 1);
      ptx::barrier_init(&s.empty[i], 4);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  constexpr int kLoads = kBug == Bug::missing_load ? 3 : kBug == Bug::unannounced_load ? 1 : 2;
  const int t = static_cast<int>(threadIdx.x) - 128;
  if (t < 0) {
    for (int i = 0; i < kSteps && t == -128; ++i) {
      const int stage = i % kStages;
      ptx::barrier_wait(&s.empty[stage], static_cast<unsigned>(i / kStages % 2) ^ 1U);
      ptx::barrier_arrive_expect(&s.full[stage], 8192 * kLoads);
      ptx::tma_load_2d(s.a[stage], &a, &s.full[stage], 64 * i, 0);
      ptx::tma_load_2d(s.b[stage], &b, &s.full[stage], 64 * i, 0);
    }
    return;
  }
  float sums[32];
  multiply_steps<kBug>(sums, s);
  for (int i = 0; i < 32; ++i) {
    const int row = 16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2);
    d[row * 64 + 8 * (i / 4) + 2 * (t % 4) + i % 2] = sums[i];
  }
  if (kBug == Bug::no_product_wait) ptx::wgmma_wait<0>();
}

template <Bug kBug> bool pipeline_is_right() {
  const Bf16s a = numbers(64 * kDepth, 3), b = numbers(64 * kDepth, 5);
  const DeviceArray<__nv_bfloat16> da(a), db(b);
  const DeviceArray<float> d(64 * 64);
  if (start(pipeline_kernel<kBug>, 1, 256, sizeof(Ring), d.get(),
            map_of(da.get(), {kDepth, 64}, 64), map_of(db.get(), {kDepth, 64}, 64)) != cudaSuccess)
    return false;
  const std::vector<float> got = d.host();
  for (int m = 0; m < 64; ++m) {
    for (int n = 0; n < 64; ++n) {
      float want = 0;
      for (int k = 0; k < kDepth; ++k)
        want += number(a, m * kDepth + k) * number(b, n * kDepth + k);
      if (got[static_cast<std::size_t>(m * 64 + n)] != want) return false;
    }
  }
  return true;
}

TEST(Sm90Pipeline, Multiplies) {
  expect_right_in_all(pipeline_is_right<Bug::none>);
}
TEST(Sm90Pipeline, FindsAMissingWaitForTheLoads) {
  expect_wrong_in_some(pipeline_is_right<Bug::no_wait>);
}
TEST(Sm90Pipeline, FindsAStageReleasedTooEarly) {
  expect_wrong_in_some(pipeline_is_right<Bug::released_early>);
}
TEST(Sm90Pipeline, FindsAMissingWaitForTheProducts) {
  expect_wrong_in_some(pipeline_is_right<Bug::no_product_wait>);
}
TEST(Sm90Pipeline, NamesWhereItWaitsForever) {
  EXPECT_FALSE(pipeline_is_right<Bug::missing_load>());
  EXPECT_REPORT(take_report(), "deadlock");
}
TEST(Sm90Pipeline, FindsALoadThatNobodyAnnounced) {
  expect_wrong_in_some(pipeline_is_right<Bug::unannounced_load>);
}

// ---- misuses ------------------------------------------------------------------------------------

__global__ void uninitialised_kernel() {
  GRIST_DYNAMIC_SHARED(Box, s);
  ptx::barrier_arrive(&s.full);
}
__global__ void unannounced_kernel(const __grid_constant__ CUtensorMap map) {
  GRIST_DYNAMIC_SHARED(Box, s);
  ptx::barrier_init(&s.full, 2);
  ptx::fence_barrier_init();
  ptx::barrier_arrive_expect(&s.full, sizeof s.line);
  ptx::tma_load_2d(s.line, &map, &s.full, 0, 0);
  ptx::barrier_arrive(&s.full);
}
__global__ void unfenced_barrier_kernel(const __grid_constant__ CUtensorMap map) {
  GRIST_DYNAMIC_SHARED(Box, s);
  ptx::barrier_init(&s.full, 1);
  ptx::barrier_arrive_expect(&s.full, sizeof s.line);
  ptx::tma_load_2d(s.line, &map, &s.full, 0, 0);
  ptx::barrier_wait(&s.full, 0);
}
__global__ void unwaited_store_kernel(const __grid_constant__ CUtensorMap map) {
  GRIST_DYNAMIC_SHARED(Box, s);
  ptx::tma_store_2d(&map, s.line, 0, 0);
  ptx::bulk_commit();
}
__global__ void misplaced_kernel(const __grid_constant__ CUtensorMap map) {
  GRIST_DYNAMIC_SHARED(Box, s);
  ptx::barrier_init(&s.full, 1);
  ptx::tma_load_2d(&s.line[0][8], &map, &s.full, 0, 0);
}

TEST(Sm90, MisusesAreNamed) {
  const DeviceArray<__nv_bfloat16> x(Bf16s(64 * 16));
  const CUtensorMap map = map_of(x.get(), {64, 16}, 15);
  EXPECT_REPORT(report_of(uninitialised_kernel, 1, 1, sizeof(Box)), "not initialised");
  EXPECT_REPORT(report_of(unfenced_barrier_kernel, 1, 1, sizeof(Box), map), "no fence after its");
  EXPECT_REPORT(report_of(misplaced_kernel, 1, 1, sizeof(Box), map), "128 bytes");
  Options lazy;
  lazy.async = Async::lazy;
  set_options(lazy);
  EXPECT_REPORT(report_of(unannounced_kernel, 1, 1, sizeof(Box), map), "on their way");
  EXPECT_REPORT(report_of(unwaited_store_kernel, 1, 1, sizeof(Box), map), "never waited for");
  set_options({});
}

}  // namespace
}  // namespace grist::emu
