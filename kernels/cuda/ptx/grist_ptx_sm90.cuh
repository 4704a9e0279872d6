#pragma once
// PTX of sm_90a: mbarriers, the tensor memory accelerator (TMA), wgmma. Rules as in grist_ptx.cuh:
// tests/cuda_emulation has a header of the same name. Every .cu file is compiled for older
// architectures too; there these functions trap.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "grist_ptx.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GRIST_SM90_ASM(...) asm volatile(__VA_ARGS__)
#else
#define GRIST_SM90_ASM(...) __trap()
#endif

namespace grist::ptx {

// ---- mbarrier ---------------------------------------------------------------------------------
// Lies in shared memory. A phase ends when `count` arrivals and all announced bytes have come; the
// next one begins at once. Phases have parities 0, 1, 0, ...

struct alignas(8) Barrier {
  std::uint64_t state;
};

// By one thread; then fence_barrier_init() in it, then __syncthreads().
__device__ inline void barrier_init(Barrier* b, int count) {
  GRIST_SM90_ASM("mbarrier.init.shared::cta.b64 [%0], %1;"
                 :
                 : "r"(shared_address(b)), "r"(count)
                 : "memory");
}
__device__ inline void fence_barrier_init() {
  GRIST_SM90_ASM("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(Barrier* b) {
  GRIST_SM90_ASM("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(shared_address(b)) : "memory");
}
// Arrives, and announces bytes that TMA loads will bring in this phase.
__device__ inline void barrier_arrive_expect(Barrier* b, std::uint32_t bytes) {
  GRIST_SM90_ASM("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(shared_address(b)), "r"(bytes)
                 : "memory");
}
// Returns when the phase of this parity has ended. Of a new barrier, phase 1 counts as ended.
__device__ inline void barrier_wait(Barrier* b, unsigned parity) {
  GRIST_SM90_ASM(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}"
      :
      : "r"(shared_address(b)), "r"(parity)
      : "memory");
}

// ---- proxies ----------------------------------------------------------------------------------
// wgmma and TMA access shared memory by the async proxy. A thread that wrote shared memory by
// ordinary stores or cp.async calls this before the barrier behind which they may read it.
__device__ inline void fence_async_proxy() {
  GRIST_SM90_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}

// One lane of a converged warp.
__device__ inline bool elect_one() {
  std::uint32_t elected = 0;
  GRIST_SM90_ASM(
      "{\n"
      ".reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(elected)
      :
      : "memory");
  return elected != 0;
}

// ---- TMA --------------------------------------------------------------------------------------
// One thread moves a box of a tensor whose map lies in kernel parameters (__grid_constant__).
// Coordinates are elements, innermost first. What lies outside the tensor is loaded as zero, counts
// as bytes, and is not stored. Shared addresses: 128-byte aligned, 1024 with 128-byte swizzling.

__device__ inline void tma_prefetch_map(const CUtensorMap* map) {
  GRIST_SM90_ASM("prefetch.tensormap [%0];" : : "l"(map) : "memory");
}
__device__ inline void tma_load_2d(void* shared, const CUtensorMap* map, Barrier* b, int x, int y) {
  GRIST_SM90_ASM(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(map), "r"(shared_address(b)), "r"(x), "r"(y)
      : "memory");
}
__device__ inline void tma_load_3d(void* shared, const CUtensorMap* map, Barrier* b, int x, int y,
                                   int z) {
  GRIST_SM90_ASM(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
      "%4, %5}], [%2];"
      :
      : "r"(shared_address(shared)), "l"(map), "r"(shared_address(b)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
__device__ inline void tma_store_2d(const CUtensorMap* map, const void* shared, int x, int y) {
  GRIST_SM90_ASM("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];"
                 :
                 : "l"(map), "r"(shared_address(shared)), "r"(x), "r"(y)
                 : "memory");
}
__device__ inline void tma_store_3d(const CUtensorMap* map, const void* shared, int x, int y,
                                    int z) {
  GRIST_SM90_ASM("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];"
                 :
                 : "l"(map), "r"(shared_address(shared)), "r"(x), "r"(y), "r"(z)
                 : "memory");
}
// The thread's stores since the last commit become a group.
__device__ inline void bulk_commit() {
  GRIST_SM90_ASM("cp.async.bulk.commit_group;" ::: "memory");
}
// Waits until at most N of the thread's groups still read their shared memory ...
template <int N> __device__ inline void bulk_wait_read() {
  GRIST_SM90_ASM("cp.async.bulk.wait_group.read %0;" : : "n"(N) : "memory");
}
// ... or are not yet visible in global memory.
template <int N> __device__ inline void bulk_wait() {
  GRIST_SM90_ASM("cp.async.bulk.wait_group %0;" : : "n"(N) : "memory");
}

// ---- wgmma ------------------------------------------------------------------------------------
// All by the 128 threads of a warpgroup together.

// How wgmma finds an operand in shared memory, swizzled by 128 bytes (16-byte chunk c of 128-byte
// line l lies at chunk c ^ l % 8). `p` may start at a multiple of 32 bytes inside the first line.
//   K-major (a line is 64 elements along k): groups of 8 rows lie group_bytes apart.
//   MN-major (a line is 64 elements along m or n): groups of 8 along k lie group_bytes apart, the
//   next 64 elements along m or n block_bytes apart.
__device__ inline std::uint64_t swizzled_matrix(const void* p, int group_bytes, int block_bytes) {
  const auto field = [](std::uint32_t bytes) {
    return static_cast<std::uint64_t>((bytes & 0x3ffffU) >> 4);
  };
  return field(shared_address(p)) | field(static_cast<std::uint32_t>(block_bytes)) << 16 |
         field(static_cast<std::uint32_t>(group_bytes)) << 32 | std::uint64_t{1} << 62;
}

// Before the first wgmma, and after other instructions touched its accumulators.
__device__ inline void wgmma_fence() {
  GRIST_SM90_ASM("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  GRIST_SM90_ASM("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most N groups are not done. Until then their operands and accumulators are in use.
template <int N> __device__ inline void wgmma_wait() {
  GRIST_SM90_ASM("wgmma.wait_group.sync.aligned %0;" : : "n"(N) : "memory");
}

#define GRIST_D0                                                                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define GRIST_D32                                                                              \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, " \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define GRIST_D64                                                                              \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, " \
  "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define GRIST_D96                                                                                \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define GRIST_OUT8(i)                                                                         \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define GRIST_OUT32(i) GRIST_OUT8(i), GRIST_OUT8(i + 8), GRIST_OUT8(i + 16), GRIST_OUT8(i + 24)
// d: the accumulator list; a, b, add, ta, tb: the numbers of the operands behind it.
#define GRIST_WGMMA(shape, list, a_, b_, add_, ta, tb, ...)                                   \
  GRIST_SM90_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, " add_                                     \
                 ", 0;\nwgmma.mma_async.sync.aligned." shape ".f32.bf16.bf16 {" list "}, " a_ \
                 ", " b_ ", p, 1, 1, " ta ", " tb ";\n}"                                      \
                 : __VA_ARGS__                                                                \
                 : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(kMnMajorA), "n"(kMnMajorB))

// d (64, N) = a (64, 16) b (16, N), or d += where `add`. Element i of thread t lies in row
// 16 (t/32) + (t%32)/4 + 8 (i/2 % 2), column 8 (i/4) + 2 (t%4) + i%2. kMnMajor 0: K-major.
template <int N, int kMnMajorA, int kMnMajorB>
__device__ inline void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, bool add) {
  static_assert(N == 64 || N == 128 || N == 192 || N == 256, "a width that is here");
  if constexpr (N == 64) {
    GRIST_WGMMA("m64n64k16", GRIST_D0, "%32", "%33", "%34", "%35", "%36", GRIST_OUT32(0));
  } else if constexpr (N == 128) {
    GRIST_WGMMA("m64n128k16", GRIST_D0 ", " GRIST_D32, "%64", "%65", "%66", "%67", "%68",
                GRIST_OUT32(0), GRIST_OUT32(32));
  } else if constexpr (N == 192) {
    GRIST_WGMMA("m64n192k16", GRIST_D0 ", " GRIST_D32 ", " GRIST_D64, "%96", "%97", "%98", "%99",
                "%100", GRIST_OUT32(0), GRIST_OUT32(32), GRIST_OUT32(64));
  } else {
    GRIST_WGMMA("m64n256k16", GRIST_D0 ", " GRIST_D32 ", " GRIST_D64 ", " GRIST_D96, "%128", "%129",
                "%130", "%131", "%132", GRIST_OUT32(0), GRIST_OUT32(32), GRIST_OUT32(64),
                GRIST_OUT32(96));
  }
}

// As GRIST_WGMMA, with a in registers; a0..a3, b, add, tb: the numbers of the operands.
#define GRIST_WGMMA_REGISTERS(shape, list, a0, a1, a2, a3, b_, add_, tb, ...)                      \
  GRIST_SM90_ASM("{\n.reg .pred p;\nsetp.ne.b32 p, " add_                                          \
                 ", 0;\nwgmma.mma_async.sync.aligned." shape ".f32.bf16.bf16 {" list "}, {" a0     \
                 ", " a1 ", " a2 ", " a3 "}, " b_ ", p, 1, 1, " tb ";\n}"                          \
                 : __VA_ARGS__                                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)), \
                   "n"(kMnMajorB))

// As wgmma(), with a in registers, which stay as they are until the wait. With row
// 16 (t/32) + (t%32)/4 and column 2 (t%4), thread t holds in the halves (low, high) of
// a[0]: (row, column and column + 1); a[1]: row + 8; a[2]: column + 8; a[3]: both. So neighbouring
// sums of a wgmma, rounded, are the left operand of a product over their columns.
template <int N, int kMnMajorB>
__device__ inline void wgmma_registers(float (&d)[N / 2], const std::uint32_t (&a)[4],
                                       std::uint64_t b, bool add) {
  static_assert(N == 64 || N == 128, "a width that is here");
  if constexpr (N == 64) {
    GRIST_WGMMA_REGISTERS("m64n64k16", GRIST_D0, "%32", "%33", "%34", "%35", "%36", "%37", "%38",
                          GRIST_OUT32(0));
  } else {
    GRIST_WGMMA_REGISTERS("m64n128k16", GRIST_D0 ", " GRIST_D32, "%64", "%65", "%66", "%67", "%68",
                          "%69", "%70", GRIST_OUT32(0), GRIST_OUT32(32));
  }
}

// After a wait: the compiler, which does not know that a wgmma writes its sums later, uses them
// only from here on.
template <int N> __device__ inline void keep_in_registers(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i]) : : "memory");
}

// Four 8x8 matrices of 16-bit elements to shared memory: the reverse of ldmatrix_x4.
__device__ inline void stmatrix_x4(void* row, const std::uint32_t (&r)[4]) {
  GRIST_SM90_ASM("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(shared_address(row)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

// ---- registers --------------------------------------------------------------------------------
// By all threads of a warpgroup: changes the registers a thread has to N, a multiple of 8.
template <int N> __device__ inline void registers_release() {
  GRIST_SM90_ASM("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(N));
}
template <int N> __device__ inline void registers_take() {
  GRIST_SM90_ASM("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(N));
}

#undef GRIST_WGMMA
#undef GRIST_WGMMA_REGISTERS
#undef GRIST_OUT32
#undef GRIST_OUT8
#undef GRIST_D0
#undef GRIST_D32
#undef GRIST_D64
#undef GRIST_D96
#undef GRIST_SM90_ASM

}  // namespace grist::ptx
