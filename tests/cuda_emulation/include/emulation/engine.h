#pragma once
// What device code calls: where a thread is, and the points where it meets other threads of its
// block. Every thread of a block is a fiber; a block stays on one OS thread.
#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

extern constinit thread_local uint3 threadIdx;
extern constinit thread_local uint3 blockIdx;
extern constinit thread_local dim3 blockDim;
extern constinit thread_local dim3 gridDim;
inline constexpr int warpSize = 32;

// A namespace of its own, so that argument-dependent lookup finds nothing else.
namespace grist::emu_where {
// A line of the program, by default argument: `Where where = Where::here()`.
struct Where {
  const char* file = nullptr;
  int line = 0;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const Where& other) const {
    return line == other.line && (file == other.file || (file != nullptr && other.file != nullptr &&
                                                         std::strcmp(file, other.file) == 0));
  }
};
}  // namespace grist::emu_where

namespace grist::emu {

using emu_where::Where;

constexpr int kWarpLanes = 32;
constexpr int kWarpgroupThreads = 128;

// The kernel did what no kernel may do: writes down who and where, and ends the launch with
// cudaErrorLaunchFailure. Only inside kernels.
[[noreturn]] void fail(const std::string& what, Where where);

// All lanes of `mask` meet; the last one to come calls combine(payloads, mask), where payloads[l]
// is what lane l brought (on its stack; null outside the mask). All return after that.
using Combine = void (*)(void* const* payloads, unsigned mask);
void warp_collective(const char* name, unsigned mask, Combine combine, void* payload, Where where);

// The same among the 128 threads of a warpgroup.
void warpgroup_collective(const char* name, Combine combine, void* payload, Where where);

constexpr int kAllThreads = -1;
struct BarrierSums {  // over the threads that met: of their `predicate`s
  int count = 0;
  bool any = false;
  bool all = true;
};
// Barrier `id` (0..15) of `threads` threads; arrive: without waiting.
BarrierSums barrier_sync(int id, int threads, bool predicate, Where where);
void barrier_arrive(int id, int threads, Where where);

// Lets other threads run. In a loop that waits for another thread of the block; `progress`: for one
// that waits for anything else (another block, the host).
void pause(Where where);
void pause_for_others(Where where);

// Dynamic shared memory of the block, of which the kernel means to use `bytes`.
void* dynamic_shared(std::size_t bytes, std::size_t alignment, Where where);
// The 32-bit address that hardware would give a shared-memory pointer of this block.
std::uint32_t shared_address(const void* p, Where where);

int lane();  // of the running thread

}  // namespace grist::emu

inline void __syncthreads(grist::emu::Where where = grist::emu::Where::here()) {
  grist::emu::barrier_sync(0, grist::emu::kAllThreads, false, where);
}
inline int __syncthreads_count(int predicate, grist::emu::Where where = grist::emu::Where::here()) {
  return grist::emu::barrier_sync(0, grist::emu::kAllThreads, predicate != 0, where).count;
}
inline int __syncthreads_or(int predicate, grist::emu::Where where = grist::emu::Where::here()) {
  return grist::emu::barrier_sync(0, grist::emu::kAllThreads, predicate != 0, where).any ? 1 : 0;
}
inline int __syncthreads_and(int predicate, grist::emu::Where where = grist::emu::Where::here()) {
  return grist::emu::barrier_sync(0, grist::emu::kAllThreads, predicate != 0, where).all ? 1 : 0;
}
inline void __nanosleep(unsigned, grist::emu::Where where = grist::emu::Where::here()) {
  grist::emu::pause_for_others(where);
}
[[noreturn]] inline void __trap(grist::emu::Where where = grist::emu::Where::here()) {
  grist::emu::fail("__trap()", where);
}
