#include "emulated.h"

namespace grist::emu {
namespace {

__global__ void shuffle_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int* o = out + 8 * lane;
  o[0] = __shfl_sync(~0U, lane, 5);
  o[1] = __shfl_sync(~0U, lane, 9, 8);
  o[2] = __shfl_up_sync(~0U, lane, 3);
  o[3] = __shfl_down_sync(~0U, lane, 3, 16);
  o[4] = __shfl_xor_sync(~0U, lane, 16);
  o[5] = static_cast<int>(__shfl_xor_sync(~0U, 0.5 * lane, 1) * 2);
  o[6] = static_cast<int>(__shfl_sync(~0U, 1ULL << 40 | static_cast<unsigned>(lane), 31) >> 40);
  o[7] = __shfl_xor_sync(~0U, lane, 12, 8);
}

TEST(Warp, Shuffles) {
  expect_right_in_all([] {
    DeviceArray<int> out(32 * 8);
    if (start(shuffle_kernel, 1, 32, 0, out.get()) != cudaSuccess) return false;
    const std::vector<int> got = out.host();
    bool right = true;
    for (int l = 0; l < 32; ++l) {
      const int last = (l ^ 12) >= l / 8 * 8 + 8 ? l : l ^ 12;
      const int want[8] = {
          5, l / 8 * 8 + 1, l < 3 ? l : l - 3, l % 16 + 3 < 16 ? l + 3 : l, l ^ 16, l ^ 1, 1, last};
      for (int i = 0; i < 8; ++i)
        right = right && got[static_cast<std::size_t>(8 * l + i)] == want[i];
    }
    return right;
  });
}

// Halves of a warp on different ways, each with its own collectives.
__global__ void halves_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane < 16) {
    int sum = lane;
    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(0x0000ffffU, sum, step);
    out[lane] = sum;
  } else {
    const unsigned ballot = __ballot_sync(0xffff0000U, lane % 3 == 0);
    __syncwarp(0xffff0000U);
    out[lane] = static_cast<int>(ballot >> 16);
  }
}

TEST(Warp, HalvesApart) {
  unsigned ballot = 0;
  for (int l = 16; l < 32; ++l) ballot |= (l % 3 == 0 ? 1U : 0U) << (l - 16);
  expect_right_in_all([&] {
    DeviceArray<int> out(32);
    if (start(halves_kernel, 1, 32, 0, out.get()) != cudaSuccess) return false;
    std::vector<int> want(16, 120);
    want.resize(32, static_cast<int>(ballot));
    return out.host() == want;
  });
}

__global__ void vote_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int* o = out + 8 * lane;
  o[0] = __any_sync(~0U, lane == 7);
  o[1] = __all_sync(~0U, lane < 31);
  o[2] = static_cast<int>(__match_any_sync(~0U, lane % 4));
  o[3] = static_cast<int>(__reduce_add_sync(~0U, static_cast<unsigned>(lane)));
  o[4] = __reduce_min_sync(~0U, 5 - lane);
  o[5] = static_cast<int>(__reduce_max_sync(~0U, static_cast<unsigned>(5 - lane)));
  o[6] = static_cast<int>(__reduce_xor_sync(~0U, 1U << lane));
  int same = 0;
  o[7] = static_cast<int>(__match_all_sync(~0U, 3.0F, &same)) + same;
}

TEST(Warp, VotesMatchesReductions) {
  expect_right_in_all([] {
    DeviceArray<int> out(32 * 8);
    if (start(vote_kernel, 1, 32, 0, out.get()) != cudaSuccess) return false;
    const std::vector<int> got = out.host();
    bool right = true;
    for (int l = 0; l < 32; ++l) {
      const int want[8] = {1, 0, 0x11111111 << (l % 4), 496, -26, -1, -1, 0};
      for (int i = 0; i < 8; ++i)
        right = right && got[static_cast<std::size_t>(8 * l + i)] == want[i];
    }
    return right;
  });
}

}  // namespace
}  // namespace grist::emu
