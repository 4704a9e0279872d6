#pragma once
// The emulation's side of kernels/cuda/ptx/grist_ptx_sm90.cuh: the same names and contracts.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "grist_ptx.cuh"

namespace grist::ptx {

// ---- mbarrier ---------------------------------------------------------------------------------

struct alignas(8) Barrier {
  std::uint64_t state;
};

void barrier_init(Barrier* b, int count, Where where = Where::here());
void fence_barrier_init();
void barrier_arrive(Barrier* b, Where where = Where::here());
void barrier_arrive_expect(Barrier* b, std::uint32_t bytes, Where where = Where::here());
void barrier_wait(Barrier* b, unsigned parity, Where where = Where::here());

// ---- proxies ----------------------------------------------------------------------------------

void fence_async_proxy();
bool elect_one(Where where = Where::here());

// ---- TMA --------------------------------------------------------------------------------------

void tma_prefetch_map(const CUtensorMap* map, Where where = Where::here());
void tma_load_2d(void* shared, const CUtensorMap* map, Barrier* b, int x, int y,
                 Where where = Where::here());
void tma_load_3d(void* shared, const CUtensorMap* map, Barrier* b, int x, int y, int z,
                 Where where = Where::here());
void tma_store_2d(const CUtensorMap* map, const void* shared, int x, int y,
                  Where where = Where::here());
void tma_store_3d(const CUtensorMap* map, const void* shared, int x, int y, int z,
                  Where where = Where::here());
void bulk_commit();
void bulk_wait_groups(int left);
template <int N> inline void bulk_wait_read() {
  bulk_wait_groups(N);
}
template <int N> inline void bulk_wait() {
  bulk_wait_groups(N);
}

// ---- wgmma ------------------------------------------------------------------------------------

std::uint64_t swizzled_matrix(const void* p, int group_bytes, int block_bytes,
                              Where where = Where::here());

void warpgroup_fence(Where where);
void warpgroup_commit(Where where);
void warpgroup_wait(int left, Where where);
// As wgmma below; d has N / 2 elements.
void warpgroup_mma(float* d, int N, bool mn_major_a, bool mn_major_b, std::uint64_t a,
                   std::uint64_t b, bool add, Where where);
// a: the thread's four registers, read when the product takes place.
void warpgroup_mma_registers(float* d, int N, bool mn_major_b, const std::uint32_t* a,
                             std::uint64_t b, bool add, Where where);

inline void wgmma_fence(Where where = Where::here()) {
  warpgroup_fence(where);
}
inline void wgmma_commit(Where where = Where::here()) {
  warpgroup_commit(where);
}
template <int N> inline void wgmma_wait(Where where = Where::here()) {
  warpgroup_wait(N, where);
}
template <int N, int kMnMajorA, int kMnMajorB>
inline void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, bool add,
                  Where where = Where::here()) {
  static_assert(N == 64 || N == 128 || N == 192 || N == 256, "a width that is here");
  warpgroup_mma(d, N, kMnMajorA != 0, kMnMajorB != 0, a, b, add, where);
}
template <int N, int kMnMajorB>
inline void wgmma_registers(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b,
                            bool add, Where where = Where::here()) {
  static_assert(N == 64 || N == 128, "a width that is here");
  warpgroup_mma_registers(d, N, kMnMajorB != 0, a, b, add, where);
}
template <int N> inline void keep_in_registers(float (&)[N]) {}

void stmatrix_x4(void* row, const std::uint32_t (&r)[4], Where where = Where::here());

// ---- registers --------------------------------------------------------------------------------

void set_registers(int n, Where where);
template <int N> inline void registers_release(Where where = Where::here()) {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8 from 24 to 256");
  set_registers(N, where);
}
template <int N> inline void registers_take(Where where = Where::here()) {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256, "a multiple of 8 from 24 to 256");
  set_registers(N, where);
}

}  // namespace grist::ptx
