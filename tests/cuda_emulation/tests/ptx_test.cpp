// ldmatrix, mma and cp.async: a small matmul through all of them, and its ways to be wrong.
#include <cmath>

#include "emulated.h"

namespace grist::emu {
namespace {

constexpr int kDepth = 64;  // k of the whole product
constexpr int kSlice = 16;  // k of one stage
constexpr int kStages = 3;
constexpr int kRows = 64;  // 4 warps of 16
constexpr int kColumns = 16;
constexpr int kRowPitch = 24;  // bf16 of a row: 48 bytes, 16-byte aligned, without bank conflicts

struct Stages {
  __nv_bfloat16 a[kStages][kRows][kRowPitch];
  __nv_bfloat16 b[kStages][kColumns][kRowPitch];
};

enum class Bug { none, no_wait, no_barrier, no_release, unguarded };

// One k slice: rows of a and b (both k-major) by 16-byte copies.
__device__ void load_slice(Stages& s, int stage, int k, const __nv_bfloat16* a,
                           const __nv_bfloat16* b, int rows) {
  const int t = static_cast<int>(threadIdx.x);
  const int row = t / 2;
  const int part = t % 2 * 8;
  ptx::cp_async_16(&s.a[stage][row][part], a + row * kDepth + k + part, row < rows);
  if (row < kColumns) ptx::cp_async_16(&s.b[stage][row][part], b + row * kDepth + k + part);
}

template <Bug kBug>
__global__ void matmul_kernel(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b, int rows) {
  GRIST_DYNAMIC_SHARED(Stages, s);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int i = 0; i < kStages - 1; ++i) {
    load_slice(s, i, i * kSlice, a, b, rows);
    ptx::cp_async_commit();
  }
  float sums[2][4] = {};
  for (int i = 0; i < kDepth / kSlice; ++i) {
    if (kBug != Bug::no_wait) ptx::cp_async_wait<kStages - 2>();
    if (kBug != Bug::no_barrier) __syncthreads();
    const int next = i + kStages - 1;
    if (kBug == Bug::no_release) {  // refills the stage that others may still read
      if (i + 1 < kDepth / kSlice) load_slice(s, (i + 1) % 2, (i + 1) * kSlice, a, b, rows);
    } else if (next < kDepth / kSlice) {
      load_slice(s, next % kStages, next * kSlice, a, b, rows);
    }
    ptx::cp_async_commit();
    const int stage = kBug == Bug::no_release ? i % 2 : i % kStages;
    std::uint32_t fa[4];
    std::uint32_t fb[4];
    ptx::ldmatrix_x4(fa, &s.a[stage][16 * warp + lane % 16][lane / 16 * 8]);
    ptx::ldmatrix_x4(fb, &s.b[stage][lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]);
    for (int n = 0; n < 2; ++n) {
      const std::uint32_t pair[2] = {fb[2 * n], fb[2 * n + 1]};
      ptx::mma_m16n8k16(sums[n], fa, pair);
    }
  }
  ptx::cp_async_wait<0>();
  for (int n = 0; n < 2; ++n) {
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * warp + lane / 4 + 8 * (i / 2);
      if (row < rows || kBug == Bug::unguarded)
        d[row * kColumns + 8 * n + 2 * (lane % 4) + i % 2] = sums[n][i];
    }
  }
}

template <Bug kBug> bool multiplies() {
  constexpr int kUsed = 60;  // rows of 64
  std::vector<__nv_bfloat16> a;
  std::vector<__nv_bfloat16> b;
  for (int i = 0; i < kUsed * kDepth; ++i)
    a.push_back(__float2bfloat16(static_cast<float>(i * 7 % 23 - 11)));
  for (int i = 0; i < kColumns * kDepth; ++i)
    b.push_back(__float2bfloat16(static_cast<float>(i * 5 % 19 - 9)));
  const DeviceArray<__nv_bfloat16> da(a);
  const DeviceArray<__nv_bfloat16> db(b);
  const DeviceArray<float> d(kUsed * kColumns);
  if (start(matmul_kernel<kBug>, 1, 128, sizeof(Stages), d.get(), da.get(), db.get(), kUsed) !=
      cudaSuccess)
    return false;
  const std::vector<float> got = d.host();
  for (int r = 0; r < kUsed; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      double sum = 0;
      for (int k = 0; k < kDepth; ++k)
        sum += double{__bfloat162float(a[static_cast<std::size_t>(r * kDepth + k)])} *
               double{__bfloat162float(b[static_cast<std::size_t>(c * kDepth + k)])};
      if (!(std::abs(sum - double{got[static_cast<std::size_t>(r * kColumns + c)]}) < 0.5))
        return false;
    }
  }
  return true;
}

TEST(Ptx, Matmul) {
  expect_right_in_all(multiplies<Bug::none>);
}
TEST(Ptx, FindsAMissingWait) {
  expect_wrong_in_some(multiplies<Bug::no_wait>);
}
TEST(Ptx, FindsAMissingBarrierAfterTheWait) {
  expect_wrong_in_some(multiplies<Bug::no_barrier>);
}
TEST(Ptx, FindsAStageRefilledTooEarly) {
  expect_wrong_in_some(multiplies<Bug::no_release>);
}
TEST(Ptx, FindsAStorePastTheLastRow) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the address sanitizer ends the process";
#endif
  EXPECT_EQ(count_right(multiplies<Bug::unguarded>), 0);
}

__global__ void transposed_kernel(std::uint32_t* out) {
  __shared__ __align__(16) std::uint16_t s[16][8];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 128; i += 32) s[i / 8][i % 8] = static_cast<std::uint16_t>(i);
  __syncwarp();
  std::uint32_t r[2];
  ptx::ldmatrix_x2_trans(r, s[lane % 16]);
  out[2 * lane] = r[0];
  out[2 * lane + 1] = r[1];
}

TEST(Ptx, LdmatrixTransposed) {
  expect_right_in_all([] {
    DeviceArray<std::uint32_t> out(64);
    if (start(transposed_kernel, 1, 32, 0, out.get()) != cudaSuccess) return false;
    const std::vector<std::uint32_t> got = out.host();
    for (unsigned l = 0; l < 32; ++l) {
      for (unsigned m = 0; m < 2; ++m) {
        const unsigned first = 64 * m + 8 * (2 * (l % 4)) + l / 4;
        if (got[2 * l + m] != (first | (first + 8) << 16)) return false;
      }
    }
    return true;
  });
}

__global__ void misaligned_kernel(const float* from) {
  __shared__ __align__(16) float s[8];
  ptx::cp_async_16(s + 1, from);
}
__global__ void unwaited_kernel(const float* from) {
  __shared__ __align__(16) float s[8];
  ptx::cp_async_16(s, from);
  ptx::cp_async_commit();
}

TEST(Ptx, MisusesAreNamed) {
  const DeviceArray<float> x(16);
  EXPECT_REPORT(report_of(misaligned_kernel, 1, 1, 0, x.get()), "not aligned to 16");
  Options lazy;
  lazy.async = Async::lazy;
  set_options(lazy);
  EXPECT_REPORT(report_of(unwaited_kernel, 1, 1, 0, x.get()), "never waited for");
  set_options({});
}

}  // namespace
}  // namespace grist::emu
