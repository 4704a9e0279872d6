// wgmma with its left operand in registers: the layout of the PTX ISA, and registers that change
// too early.
#include "sm90.h"

namespace grist::emu {
namespace {

// PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16": where a thread's element i, of 8,
// lies in A.
struct Place {
  int row, column;
};
__device__ Place place_in_a(int thread, int i) {
  const int group = thread % 32 / 4, in_group = thread % 4, warp = thread / 32;
  const bool upper = i == 0 || i == 1 || i == 4 || i == 5;
  return {16 * warp + group + (upper ? 0 : 8), in_group * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}

struct alignas(1024) Right {
  __nv_bfloat16 b[128 * 64];
};

enum class Bug { none, overwritten };

// d (64, N) = 1 + a (64, 16) b, with b from shared memory: (N, 16), or (16, N) with kMnMajor.
template <int N, int kMnMajor, Bug kBug>
__global__ void product_kernel(float* d, const __nv_bfloat16* a, const __nv_bfloat16* b) {
  GRIST_DYNAMIC_SHARED(Right, s);
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < N * 16; i += 128) put(s.b, kMnMajor != 0, i / 16, i % 16, b[i]);
  ptx::fence_async_proxy();
  __syncthreads();
  std::uint32_t left[4] = {};
  for (int i = 0; i < 8; ++i) {
    const Place p = place_in_a(t, i);
    left[i / 2] |= static_cast<std::uint32_t>(__bfloat16_as_ushort(a[p.row * 16 + p.column]))
                   << i % 2 * 16;
  }
  float sums[N / 2];
  for (float& sum : sums) sum = 1;
  ptx::wgmma_fence();
  ptx::wgmma_registers<N, kMnMajor>(sums, left, ptx::swizzled_matrix(s.b, 1024, 8192), true);
  ptx::wgmma_commit();
  if (kBug == Bug::overwritten) left[1] = 0;
  ptx::wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i)
    d[(16 * (t / 32) + t % 32 / 4 + 8 * (i / 2 % 2)) * N + 8 * (i / 4) + 2 * (t % 4) + i % 2] =
        sums[i];
}

template <int N, int kMnMajor, Bug kBug = Bug::none> bool product_is_right() {
  const Bf16s left = numbers(64 * 16, 3), right = numbers(N * 16, 7);
  const DeviceArray<__nv_bfloat16> a(left), b(right);
  const DeviceArray<float> d(64 * N);
  if (start(product_kernel<N, kMnMajor, kBug>, 1, 128, sizeof(Right), d.get(), a.get(), b.get()) !=
      cudaSuccess)
    return false;
  return is_product(d.host(), left, right, N, 16);
}

TEST(WgmmaRegisters, LieAsThePtxIsaSays) {
  expect_right_in_all(product_is_right<64, 0>);
  expect_right_in_all(product_is_right<64, 1>);
  expect_right_in_all(product_is_right<128, 0>);
  expect_right_in_all(product_is_right<128, 1>);
}
TEST(WgmmaRegisters, MayNotChangeBeforeTheWait) {
  expect_wrong_in_some(product_is_right<64, 0, Bug::overwritten>);
}

}  // namespace
}  // namespace grist::emu
