// Sums over tokens of what the router decides, CUDA.
//
// Shapes    logits (N, E); ids, weights (N, K); counts, fractions, prob_sums (S, E); scalars (3).
// Launch    (1) half a warp a token: its softmax and scalars; (2) a thread an expert and chunk of
//           tokens; (3) a thread an expert adds the chunks.
// Numerics  in double over fixed chunks of tokens, tokens and chunks in order; built with
//           --fmad=false and --ftz=true. Counts, and so fractions, are exact. Sums differ from the
//           CPU's, whose chunks are longer, by rounding in double.
// Traffic   logits once in (1), once in (2); a chunk's ids once a block of 128 experts.
// Scratch   32 bytes a token and 12 bytes an expert and chunk.
// See       docs/routing.md, kernels/cpu/router.cpp, test tests/cuda/router_test.cpp.
#include "grist/core/memory.h"
#include "grist/ops/router.h"
#include "kernels/backends.h"
#include "router_math.cuh"

namespace grist::cuda {
namespace {

using ops::ScoreFunction;

constexpr int kChunk = 64;     // tokens a partial sum: part of the result's bits
constexpr int kColumns = 128;  // experts a block
constexpr int kNumScalars = 3;

struct Statistics {
  const float* logits;
  const std::int32_t* ids;
  const float* weights;
  std::int64_t N, S, segment, chunks;  // chunks: a segment's
  int E, K;
  ScoreFunction score;
  // Scratch.
  float2* scales;         // (N)  x: the row's maximum, y: 1 / sum over the row
  double* token_scalars;  // (N, kNumScalars)
  unsigned* counts;       // (S * chunks, E)
  double* prob_sums;      // (S * chunks, E)
  double* scalars;        // (S * chunks, kNumScalars)
};

struct Probabilities {
  float max, inverse;
  double logsumexp, entropy;  // entropy of q, nats
};

// q log q is summed as q (l - max) - q log(sum).
__device__ Probabilities softmax_probabilities(const PaddedRow& l) {
  const float m = row_max(l.n, l);
  const auto e = [&](int j) { return row::exp_negative(l(j) - m); };
  const float sum = row_sum(l.n, e);
  const float inverse = 1.0F / sum;
  const double log_sum = log(static_cast<double>(sum));
  const double mean =
      static_cast<double>(row_sum(l.n, [&](int j) { return e(j) * (l(j) - m); })) * inverse;
  return {m, inverse, m + log_sum, log_sum - mean};
}

// q = s / sum of s.
__device__ Probabilities elementwise_probabilities(ScoreFunction score, const PaddedRow& l) {
  const Softmax p = softmax_of(l.n, l);
  const auto s = [&](int j) { return row::score(score, l(j)).value; };
  const float sum = row_sum(l.n, s);
  const float inverse = 1.0F / sum;
  const float log_sum = row_sum(l.n, [&](int j) { return s(j) * row::log_score(score, l(j)); });
  return {0.0F, inverse, p.max + log(static_cast<double>(p.sum)),
          log(static_cast<double>(sum)) - static_cast<double>(log_sum) * inverse};
}

__device__ double largest_share(const float* weights, int K) {
  double sum = 0, largest = weights[0];
  for (int k = 0; k < K; ++k) {
    const double w = weights[k];
    sum += w;
    if (w > largest) largest = w;
  }
  return largest / sum;
}

__global__ void token_statistics_kernel(Statistics a) {
  const TokenOfThread t = token_of_thread(a.N, 0);
  const PaddedRow logits{a.logits + t.n * a.E, a.E, row::kPad};
  const Probabilities q = row::is_elementwise(a.score) ? elementwise_probabilities(a.score, logits)
                                                       : softmax_probabilities(logits);
  if (!t.live || token_lane() != 0) return;
  a.scales[t.n] = {q.max, q.inverse};
  double* scalars = a.token_scalars + t.n * kNumScalars;
  scalars[0] = q.logsumexp * q.logsumexp;
  scalars[1] = q.entropy;
  scalars[2] = largest_share(a.weights + t.n * a.K, a.K);
}

struct TokenRange {
  std::int64_t begin, end;
};
__device__ TokenRange tokens_of_chunk(const Statistics& a) {
  const std::int64_t chunk = blockIdx.x;
  const std::int64_t first = chunk / a.chunks * a.segment;
  const std::int64_t begin = first + chunk % a.chunks * kChunk;
  const std::int64_t end = first + a.segment;
  return {begin, begin + kChunk < end ? begin + kChunk : end};
}

// The block's last row of the grid: scalars. The others: kColumns experts each.
__device__ void add_scalars(const Statistics& a, const TokenRange& tokens) {
  if (threadIdx.x >= kNumScalars) return;
  double sum = 0;
  for (std::int64_t n = tokens.begin; n < tokens.end; ++n)
    sum += a.token_scalars[n * kNumScalars + threadIdx.x];
  a.scalars[blockIdx.x * kNumScalars + threadIdx.x] = sum;
}

__global__ void __launch_bounds__(kColumns) chunk_statistics_kernel(Statistics a) {
  __shared__ unsigned count[kColumns];
  const TokenRange tokens = tokens_of_chunk(a);
  if (blockIdx.y == gridDim.y - 1) {
    add_scalars(a, tokens);
    return;
  }
  const int first = static_cast<int>(blockIdx.y) * kColumns;
  const int e = first + static_cast<int>(threadIdx.x);
  count[threadIdx.x] = 0;
  __syncthreads();
  for (std::int64_t i = tokens.begin * a.K + threadIdx.x; i < tokens.end * a.K; i += kColumns) {
    const int column = a.ids[i] - first;
    if (0 <= column && column < kColumns) atomicAdd(&count[column], 1U);
  }
  double sum = 0;
  for (std::int64_t n = tokens.begin; e < a.E && n < tokens.end; ++n) {
    const float l = a.logits[n * a.E + e];
    const float2 scale = a.scales[n];
    const float s = row::is_elementwise(a.score) ? row::score(a.score, l).value
                                                 : row::exp_negative(l - scale.x);
    sum += static_cast<double>(s * scale.y);
  }
  __syncthreads();
  if (e >= a.E) return;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * a.E + e;
  a.counts[at] = count[threadIdx.x];
  a.prob_sums[at] = sum;
}

struct Sums {
  std::int64_t* counts;
  float* fractions;
  double* prob_sums;
  double* scalars;
};

// Adds the chunks of each segment in order; then f. Block (0, s) also adds the scalars.
__global__ void __launch_bounds__(kColumns) add_chunks_kernel(Statistics a, Sums out) {
  const std::int64_t s = blockIdx.y;
  const int e = static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
  if (e < a.E) {
    std::int64_t count = 0;
    double sum = 0;
    for (std::int64_t chunk = s * a.chunks; chunk < (s + 1) * a.chunks; ++chunk) {
      count += a.counts[chunk * a.E + e];
      sum += a.prob_sums[chunk * a.E + e];
    }
    const std::int64_t choices = a.segment * a.K;
    const double scale = choices == 0 ? 0.0 : 1.0 / static_cast<double>(choices);
    out.counts[s * a.E + e] = count;
    out.prob_sums[s * a.E + e] = sum;
    out.fractions[s * a.E + e] = static_cast<float>(scale * static_cast<double>(count));
  }
  if (blockIdx.x != 0 || s != 0 || threadIdx.x >= kNumScalars) return;
  double sum = 0;
  for (std::int64_t chunk = 0; chunk < a.S * a.chunks; ++chunk)
    sum += a.scalars[chunk * kNumScalars + threadIdx.x];
  out.scalars[threadIdx.x] = sum;
}

}  // namespace

void router_statistics(const Context& ctx, const ops::RouterStatistics& a) {
  const std::int64_t N = a.logits.shape[0], E = a.logits.shape[1], S = a.counts.shape[0];
  const std::int64_t segment = N / S;
  const std::int64_t chunks = (segment + kChunk - 1) / kChunk;
  const ScratchScope scope(ctx.scratch);
  const Statistics s{.logits = a.logits.as<float>(),
                     .ids = a.ids.as<std::int32_t>(),
                     .weights = a.weights.as<float>(),
                     .N = N,
                     .S = S,
                     .segment = segment,
                     .chunks = chunks,
                     .E = static_cast<int>(E),
                     .K = static_cast<int>(a.ids.shape[1]),
                     .score = a.mode.score,
                     .scales = ctx.scratch->allocate<float2>(N),
                     .token_scalars = ctx.scratch->allocate<double>(N * kNumScalars),
                     .counts = ctx.scratch->allocate<unsigned>(S * chunks * E),
                     .prob_sums = ctx.scratch->allocate<double>(S * chunks * E),
                     .scalars = ctx.scratch->allocate<double>(S * chunks * kNumScalars)};
  const TokenGrid grid = token_grid(N, 0);
  const unsigned columns = blocks_for(E, kColumns);
  const cudaStream_t stream = stream_of(ctx);
  launch(token_statistics_kernel, grid.blocks, grid.threads, 0, stream, s);
  launch(chunk_statistics_kernel, dim3(static_cast<unsigned>(S * chunks), columns + 1), kColumns, 0,
         stream, s);
  launch(add_chunks_kernel, dim3(columns, static_cast<unsigned>(S)), kColumns, 0, stream, s,
         Sums{a.counts.as<std::int64_t>(), a.fractions.as<float>(), a.prob_sums.as<double>(),
              a.scalars.as<double>()});
}

}  // namespace grist::cuda
