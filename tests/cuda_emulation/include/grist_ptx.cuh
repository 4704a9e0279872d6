#pragma once
// The emulation's side of kernels/cuda/ptx/grist_ptx.cuh: the same names and contracts.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define GRIST_DYNAMIC_SHARED(Type, name) \
  Type& name = *static_cast<Type*>(      \
      ::grist::emu::dynamic_shared(sizeof(Type), alignof(Type), ::grist::emu::Where::here()))

namespace grist::ptx {

using emu::Where;

inline std::uint32_t shared_address(const void* p, Where where = Where::here()) {
  return emu::shared_address(p, where);
}

// ---- sm_80 ------------------------------------------------------------------------------------

// `count` matrices (1, 2 or 4) into r[count].
void ldmatrix(std::uint32_t* r, int count, const void* row, bool transposed, Where where);

inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, Where where = Where::here()) {
  ldmatrix(r, 4, row, false, where);
}
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* row, Where where = Where::here()) {
  ldmatrix(r, 2, row, false, where);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row, Where where = Where::here()) {
  ldmatrix(r, 4, row, true, where);
}
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row, Where where = Where::here()) {
  ldmatrix(r, 2, row, true, where);
}

void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                  Where where = Where::here());

void cp_async_16(void* shared, const void* global, bool valid = true, Where where = Where::here());
void cp_async_commit();
void cp_async_wait_groups(int left);
template <int N> inline void cp_async_wait() {
  cp_async_wait_groups(N);
}

inline void named_barrier_sync(int id, int threads, Where where = Where::here()) {
  if (id < 1) emu::fail("named barriers are 1 to 15", where);
  emu::barrier_sync(id, threads, false, where);
}
inline void named_barrier_arrive(int id, int threads, Where where = Where::here()) {
  if (id < 1) emu::fail("named barriers are 1 to 15", where);
  emu::barrier_arrive(id, threads, where);
}

}  // namespace grist::ptx
