// Reductions of fixed shape (ops/optimizer.h), CUDA.
//
// Shapes    chunks of up to kNormChunk f32 elements -> f64; n f64 -> 1; (P, n) f32 -> (n), P <
//           65536.
// Launch    a chunk is summed by sixteen threads, each the owner of one of the CPU's lanes; half a
//           warp a chunk. A balanced tree is built bottom-up: a thread makes the subtrees of its
//           own aligned part, one block joins them level by level. Over parts: a thread a vector.
// Numerics  the additions of kernels/cpu/optimizer.cpp in their order: the CPU's bits.
// Traffic   every input once; 8 bytes written a chunk, 4 an element of a tree over parts.
// See       kernels/cpu/optimizer.cpp, test tests/cuda/optimizer_test.cpp.
#include "elementwise.cuh"
#include "grist/core/memory.h"
#include "grist/ops/optimizer.h"
#include "kernels/backends.h"

namespace grist::cuda {
namespace {

// ---- sums of chunks ----------------------------------------------------------------------------

constexpr int kLanes = 16;         // double sums of a chunk: element i belongs to lane i mod kLanes
constexpr int kChunkThreads = 64;  // a small block spreads few chunks over many multiprocessors
constexpr int kAhead = 16;         // loads of a thread under way

struct Squares {
  __device__ double operator()(double x) const { return x * x; }
};
struct Values {
  __device__ double operator()(double x) const { return x; }
};

struct Chunk {
  const float* x;
  std::int64_t n;
};

// The chunks of one vector.
struct EqualChunks {
  const float* x;
  std::int64_t n;
  __device__ Chunk operator()(std::int64_t c) const {
    const std::int64_t begin = c * ops::kNormChunk, rest = n - begin;
    return {x + begin, rest < ops::kNormChunk ? rest : ops::kNormChunk};
  }
};
// Chunks anywhere: (address of the first element, number of elements) each.
struct ListedChunks {
  const std::int64_t* list;
  __device__ Chunk operator()(std::int64_t c) const {
    return {reinterpret_cast<const float*>(list[2 * c]), list[2 * c + 1]};
  }
};

template <class Term, class Chunks>
__global__ void __launch_bounds__(kChunkThreads)
    chunk_sums_kernel(double* sums, const Chunks chunks, std::int64_t count) {
  const std::int64_t c =
      (static_cast<std::int64_t>(blockIdx.x) * kChunkThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const Term term;
  double sum = 0.0;
  if (c < count) {
    const Chunk chunk = chunks(c);
    std::int64_t i = lane;
    for (; i + (kAhead - 1) * kLanes < chunk.n; i += kAhead * kLanes) {
      float x[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) x[j] = chunk.x[i + j * kLanes];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) sum += term(static_cast<double>(x[j]));
    }
    for (; i < chunk.n; i += kLanes) sum += term(static_cast<double>(chunk.x[i]));
  }
  for (int step = kLanes / 2; step > 0; step /= 2)
    sum += __shfl_xor_sync(kAllLanes, sum, step);  // addition commutes: the CPU's tree
  if (c < count && lane == 0) sums[c] = sum;
}

template <class Term, class Chunks>
void chunk_sums(const Context& ctx, double* sums, const Chunks& chunks, std::int64_t count) {
  launch(chunk_sums_kernel<Term, Chunks>, blocks_for(count, kChunkThreads / kLanes), kChunkThreads,
         0, stream_of(ctx), sums, chunks, count);
}

std::int64_t chunks_of(std::int64_t n) {
  return (n + ops::kNormChunk - 1) / ops::kNormChunk;
}

// ---- balanced trees ----------------------------------------------------------------------------

// The sum of values that come one after another, by the balanced tree in which neighbours are added
// first. Level k holds a finished subtree of 2^k values while bit k of their number is set.
template <class V, int kLevels> class Tree {
 public:
  // Value number i.
  __device__ void add(V value, unsigned i) {
#pragma unroll
    for (int k = 0; k < kLevels; ++k) {
      if ((i >> k & 1U) == 0) {
        level_[k] = value;
        break;
      }
      value = level_[k] + value;
    }
  }
  // Of n > 0 values: what is left of each level, the last (smallest) first.
  __device__ V total(unsigned n) const {
    V sum = {};
    bool any = false;
#pragma unroll
    for (int k = 0; k < kLevels; ++k) {
      if ((n >> k & 1U) == 0) continue;
      sum = any ? level_[k] + sum : level_[k];
      any = true;
    }
    return sum;
  }

 private:
  V level_[kLevels];
};

constexpr int kTreeThreads = 1024;

// One block. A thread's part is `part` values, a power of two: a subtree.
__global__ void __launch_bounds__(kTreeThreads)
    tree_sum_kernel(double* sum, const double* x, std::int64_t n, std::int64_t part) {
  __shared__ double sums[kTreeThreads];
  const std::int64_t begin = threadIdx.x * part;
  const std::int64_t left = n - begin;
  if (left > 0) {
    const auto own = static_cast<unsigned>(left < part ? left : part);
    Tree<double, 31> tree;
    for (unsigned i = 0; i < own; ++i) tree.add(x[begin + i], i);
    sums[threadIdx.x] = tree.total(own);
  }
  const auto parts = static_cast<int>((n + part - 1) / part);
  for (int step = 1; step < parts; step *= 2) {
    __syncthreads();
    const int at = static_cast<int>(threadIdx.x) * 2 * step;
    if (at + step < parts) sums[at] += sums[at + step];
  }
  if (threadIdx.x == 0) *sum = n > 0 ? sums[0] : 0.0;
}

void tree_sum_of(const Context& ctx, double* sum, const double* x, std::int64_t n) {
  std::int64_t part = 1;
  while (part * kTreeThreads < n) part *= 2;
  launch(tree_sum_kernel, 1, kTreeThreads, 0, stream_of(ctx), sum, x, n, part);
}

constexpr int kPartsAhead = 4;
constexpr int kTreeLevels = 16;

template <int W> struct Floats {
  float v[W];
  __device__ Floats operator+(const Floats& other) const {
    Floats sum;
    for (int i = 0; i < W; ++i) sum.v[i] = v[i] + other.v[i];
    return sum;
  }
};

template <int W>
__global__ void __launch_bounds__(kBlockThreads)
    tree_add_kernel(float* sum, const float* parts, unsigned count, std::int64_t n) {
  const std::int64_t i = item_of_thread<1>(0) * W;
  if (i >= n) return;
  Tree<Floats<W>, kTreeLevels> tree;
  for (unsigned first = 0; first < count; first += kPartsAhead) {
    Floats<W> x[kPartsAhead];
#pragma unroll
    for (unsigned j = 0; j < kPartsAhead; ++j)
      if (first + j < count) load_floats(x[j].v, parts + (first + j) * n + i);
#pragma unroll
    for (unsigned j = 0; j < kPartsAhead; ++j)
      if (first + j < count) tree.add(x[j], first + j);
  }
  store_floats(sum + i, tree.total(count).v);
}

}  // namespace

void squared_sums(const Context& ctx, const ops::SquaredSums& a) {
  chunk_sums<Squares>(ctx, a.partials.as<double>(), ListedChunks{a.chunks.as<std::int64_t>()},
                      a.partials.numel());
}

void tree_sum(const Context& ctx, const ops::TreeSum& a) {
  tree_sum_of(ctx, a.sum.as<double>(), a.partials.as<double>(), a.partials.numel());
}

void sum(const Context& ctx, const ops::Sum& a) {
  const std::int64_t n = a.x.numel(), chunks = chunks_of(n);
  const ScratchScope scope(ctx.scratch);
  auto* partials = ctx.scratch->allocate<double>(chunks);
  chunk_sums<Values>(ctx, partials, EqualChunks{a.x.as<float>(), n}, chunks);
  tree_sum_of(ctx, a.sum.as<double>(), partials, chunks);
}

void tree_add(const Context& ctx, const ops::TreeAdd& a) {
  const std::int64_t count = a.parts.shape[0], n = a.parts.shape[1];
  if (count >> kTreeLevels != 0) throw Error(ExitCode::internal, "tree_add: too many parts");
  auto* out = a.sum.as<float>();
  const auto* parts = a.parts.as<float>();
  for_width<float>(n, {out, parts}, [&](auto width) {
    constexpr int W = decltype(width)::value;
    launch(tree_add_kernel<W>, blocks_for_items<1>(n / W), kBlockThreads, 0, stream_of(ctx), out,
           parts, static_cast<unsigned>(count), n);
  });
}

}  // namespace grist::cuda
