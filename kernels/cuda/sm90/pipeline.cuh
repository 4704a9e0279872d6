#pragma once
// The main loop that all Hopper matmuls share. A thread block has three warpgroups: the first
// brings pieces of the operands, 64 deep, into a ring of stages in shared memory; the other two
// multiply, each 64 of the tile's 128 rows. Per stage one barrier says "full" and one "empty".
//
// Operands lie in shared memory as boxes of 128-byte lines of 64 elements, swizzled by 128 bytes,
// whether the TMA or the threads of the first warpgroup (cp.async, for rows chosen by an index)
// wrote them.
#include <grist_ptx_sm90.cuh>

#include "kernels/cuda/device.cuh"

namespace grist::cuda::sm90 {

constexpr int kWarpgroup = 128;
constexpr int kMultipliers = 2;  // warpgroups
constexpr int kBlockThreads = (1 + kMultipliers) * kWarpgroup;
constexpr int kDepth = 64;                  // of one stage
constexpr int kTileRows = 128;              // of the output
constexpr int kLineBytes = kDepth * 2;      // also the width of the swizzle
constexpr int kBoxBytes = 64 * kLineBytes;  // 64 lines

// What a tile `kWidth` columns wide needs: kStages stages, and kExtra bytes for what comes after.
template <int kWidth_, int kStages_, int kExtra> struct alignas(1024) TileMemory {
  static constexpr int kWidth = kWidth_, kStages = kStages_;
  static constexpr int kBytesA = kTileRows * kLineBytes, kBytesB = kWidth * kLineBytes;
  unsigned char a[kStages][kBytesA];
  unsigned char b[kStages][kBytesB];
  unsigned char extra[kExtra];
  ptx::Barrier full[kStages], empty[kStages];
};

// `writers`: arrivals that make a stage full. By all threads of the block.
template <class Memory> __device__ inline void start_pipeline(Memory& m, int writers) {
  if (threadIdx.x == 0) {
    for (int s = 0; s < Memory::kStages; ++s) {
      ptx::barrier_init(&m.full[s], writers);
      ptx::barrier_init(&m.empty[s], kMultipliers * kWarpgroup / kWarp);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
}

// Where a warpgroup is in the ring. It goes on from tile to tile.
template <int kStages> struct Position {
  int stage = 0;
  unsigned parity = 0;
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1U;
    }
  }
};

// ---- the warpgroup that brings operands ---------------------------------------------------------

// Starts one thread's copies (of a warpgroup's) into a box of kLines lines: 16 bytes of lines
// t/8, t/8 + 16, ... The line's source is null for a line of zeros; `column` is added to all.
template <int kLines>
__device__ inline void copy_lines(unsigned char* box, const bf16* const (&lines)[kLines / 16],
                                  int column, bool inside) {
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup, line = t / 8, chunk = t % 8;
  unsigned char* to = box + line * kLineBytes + ((chunk ^ (line % 8)) * 16);
#pragma unroll
  for (int i = 0; i < kLines / 16; ++i) {
    const bool valid = inside && lines[i] != nullptr;
    ptx::cp_async_16(to + i * 16 * kLineBytes, lines[i] + (valid ? column : 0), valid);
  }
}

// Stages that threads fill by cp.async are announced a little later, when the copies have come: the
// writing threads see them done, make them visible to wgmma, and one lane a warp arrives.
template <class Memory> class LateArrival {
 public:
  static constexpr int kWriters = kWarpgroup / kWarp;  // arrivals a stage
  static constexpr int kLag = Memory::kStages - 2;     // more would wait for its own readers
  __device__ explicit LateArrival(Memory& m) : memory_(m) {}
  // After the copies of one more stage have been started.
  __device__ void next_stage() {
    ptx::cp_async_commit();
    if (++started_ > kLag) {
      ptx::cp_async_wait<kLag>();
      arrive();
    }
  }
  // At the end: nothing may stay unannounced.
  __device__ void finish() {
    ptx::cp_async_wait<0>();
    for (int i = min(started_, kLag); i > 0; --i) arrive();
  }

 private:
  __device__ void arrive() {
    ptx::fence_async_proxy();
    __syncwarp();
    if (threadIdx.x % kWarp == 0) ptx::barrier_arrive(&memory_.full[stage_]);
    stage_ = stage_ + 1 == Memory::kStages ? 0 : stage_ + 1;
  }
  Memory& memory_;
  int started_ = 0;  // stages, counted to kLag + 1 and beyond
  int stage_ = 0;    // the next to announce
};

// ---- the warpgroups that multiply ---------------------------------------------------------------

// The same matrix some bytes further on in shared memory: the descriptor's low bits are the address
// in units of 16 bytes.
__device__ inline std::uint64_t moved(std::uint64_t matrix, int bytes) {
  return matrix + static_cast<std::uint64_t>(bytes >> 4);
}

// acc (64, kWidth) = the product over `depths` stages; this warpgroup's rows. `a_bytes` is where
// they start in a stage. kMnMajor: the operand's lines lie along the rows or columns of the output.
template <bool kMnMajorA, bool kMnMajorB, class Memory>
__device__ inline void multiply(float (&acc)[Memory::kWidth / 2], Memory& m, int a_bytes,
                                Position<Memory::kStages>& at, int depths) {
  constexpr int kStep = 16;  // depth of a wgmma
  constexpr int kStepA = kMnMajorA ? kStep * kLineBytes : kStep * 2;
  constexpr int kStepB = kMnMajorB ? kStep * kLineBytes : kStep * 2;
  const auto first_a = ptx::swizzled_matrix(m.a[0] + a_bytes, 8 * kLineBytes, kBoxBytes);
  const auto first_b = ptx::swizzled_matrix(m.b[0], 8 * kLineBytes, kBoxBytes);
  const bool announces = threadIdx.x % kWarp == 0;
  int previous = 0;
  for (int i = 0; i < depths; ++i) {
    const auto a = moved(first_a, at.stage * Memory::kBytesA);
    const auto b = moved(first_b, at.stage * Memory::kBytesB);
    ptx::barrier_wait(&m.full[at.stage], at.parity);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kDepth / kStep; ++k) {
      ptx::wgmma<Memory::kWidth, kMnMajorA, kMnMajorB>(acc, moved(a, k * kStepA),
                                                       moved(b, k * kStepB), i > 0 || k > 0);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();  // the stage before is read
    if (i > 0 && announces) ptx::barrier_arrive(&m.empty[previous]);
    previous = at.stage;
    at.advance();
  }
  ptx::wgmma_wait<0>();
  if (depths > 0 && announces) ptx::barrier_arrive(&m.empty[previous]);
}

}  // namespace grist::cuda::sm90
