// Token embedding, CUDA.
//
//   forward    y[n] = table[ids[n]]
//   backward   dtable[ids[n]] += dy[n], n ascending
//
// Shapes    table, dtable (V, D) f32; ids (N); y, dy (N, D) f32 or bf16.
// Launch    forward: rows.cuh. Backward sorts the pairs (id, n): blocks sort tiles of them, then
//           runs are merged, each pair finding its place by binary search in the other run. A warp
//           whose pair is the first of its id then adds all rows of that id to 32 vectors of the
//           table's row.
// Numerics  fp32, every sum in ascending n from the old value: the CPU's bits. An id that the table
//           does not have gives NaN forward, and adds nothing backward.
// Traffic   forward: a row of the table read, one of y written a token. Backward: dy once, the
//           touched rows of dtable read and written once, 16 bytes a token and merge.
// Scratch   16 bytes a token.
// See       kernels/cpu/embedding.cpp, test tests/cuda/embedding_test.cpp.
#include <cmath>

#include "elementwise.cuh"
#include "grist/core/memory.h"
#include "grist/ops/embedding.h"
#include "kernels/backends.h"
#include "rows.cuh"

namespace grist::cuda {
namespace {

using Pair = std::uint64_t;  // id in the upper half, n in the lower: no two are equal

constexpr int kTile = 512;  // pairs a block sorts, one a thread
constexpr int kAhead = 8;   // rows under way together

__device__ inline std::uint32_t id_of(Pair p) {
  return static_cast<std::uint32_t>(p >> 32);
}

__global__ void __launch_bounds__(kTile)
    sort_tiles_kernel(Pair* sorted, const std::int32_t* ids, int N) {
  __shared__ Pair tile[kTile];
  const int begin = static_cast<int>(blockIdx.x) * kTile, n = begin + static_cast<int>(threadIdx.x);
  const Pair own = n < N ? (static_cast<Pair>(static_cast<std::uint32_t>(ids[n])) << 32) |
                               static_cast<std::uint32_t>(n)
                         : ~Pair{0};
  tile[threadIdx.x] = own;
  __syncthreads();
  int place = 0;
  for (int i = 0; i < kTile; ++i) place += tile[i] < own ? 1 : 0;
  if (n < N) sorted[begin + place] = own;
}

// Merges neighbouring sorted runs of `run` pairs.
__global__ void __launch_bounds__(kBlockThreads)
    merge_kernel(Pair* to, const Pair* from, int run, int N) {
  const int i = static_cast<int>(blockIdx.x * kBlockThreads + threadIdx.x);
  if (i >= N) return;
  const int begin = i / (2 * run) * (2 * run), middle = min(begin + run, N);
  const bool left = i < middle;
  const int other = left ? middle : begin, other_end = left ? min(middle + run, N) : middle;
  const Pair own = from[i];
  int low = other, high = other_end;  // the first of the other run that is not before `own`
  while (low < high) {
    const int mid = (low + high) / 2;
    if (from[mid] < own)
      low = mid + 1;
    else
      high = mid;
  }
  to[begin + (left ? i - begin : i - middle) + (low - other)] = own;
}

template <class T, int W>
__global__ void __launch_bounds__(kBlockThreads)
    add_rows_kernel(float* dtable, const T* dy, const Pair* sorted, int N, int D, std::int64_t V) {
  const int first = static_cast<int>((blockIdx.x * kBlockThreads + threadIdx.x) / kWarp);
  const int d = static_cast<int>(blockIdx.y * kWarp + threadIdx.x % kWarp) * W;
  if (first >= N || d >= D) return;
  const std::uint32_t id = id_of(sorted[first]);
  if (first > 0 && id_of(sorted[first - 1]) == id) return;
  if (id >= V) return;
  float sum[W];
  load_floats(sum, dtable + id * std::int64_t{D} + d);
  bool more = true;
  for (int begin = first; more; begin += kAhead) {
    Vec<T, W> x[kAhead];
    bool same[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const Pair pair = begin + j < N ? sorted[begin + j] : ~Pair{0};
      same[j] = id_of(pair) == id;
      if (same[j]) x[j] = load<W>(dy + static_cast<std::int64_t>(pair & 0xffffffffU) * D + d);
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      for (int i = 0; i < W; ++i)
        if (same[j]) sum[i] += x[j][i];
    more = same[kAhead - 1];
  }
  store_floats(dtable + id * std::int64_t{D} + d, sum);
}

// The pairs (id, n), sorted; in scratch memory.
const Pair* sorted_pairs(const Context& ctx, const std::int32_t* ids, int N) {
  Pair* sorted = ctx.scratch->allocate<Pair>(N);
  Pair* other = ctx.scratch->allocate<Pair>(N);
  launch(sort_tiles_kernel, blocks_for(N, kTile), kTile, 0, stream_of(ctx), sorted, ids, N);
  for (std::int64_t run = kTile; run < N; run *= 2) {
    launch(merge_kernel, blocks_for(N, kBlockThreads), kBlockThreads, 0, stream_of(ctx), other,
           sorted, static_cast<int>(run), N);
    std::swap(sorted, other);
  }
  return sorted;
}

}  // namespace

void embedding_forward(const Context& ctx, const ops::EmbeddingForward& a) {
  for_dtype(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    copy_rows<T, float>(ctx, {.y = elements<T>(a.y),
                              .x = a.table.as<float>(),
                              .index = a.ids.as<std::int32_t>(),
                              .R = a.ids.shape[0],
                              .N = a.table.shape[0],
                              .D = a.table.shape[1]});
  });
}

void embedding_backward(const Context& ctx, const ops::EmbeddingBackward& a) {
  const auto N = static_cast<int>(a.ids.shape[0]);
  const std::int64_t V = a.dtable.shape[0], D = a.dtable.shape[1];
  const ScratchScope scope(ctx.scratch);
  const Pair* sorted = sorted_pairs(ctx, a.ids.as<std::int32_t>(), N);
  for_dtype(a.dy.dtype, [&](auto type) {
    using T = decltype(type);
    for_width<T>(D, {a.dtable.data, a.dy.data}, [&](auto width) {
      constexpr int W = decltype(width)::value;
      const dim3 grid(blocks_for(N, kBlockThreads / kWarp), blocks_for(D, kWarp * W));
      launch(add_rows_kernel<T, W>, grid, kBlockThreads, 0, stream_of(ctx), a.dtable.as<float>(),
             elements<T>(a.dy), sorted, N, static_cast<int>(D), V);
    });
  });
}

}  // namespace grist::cuda
