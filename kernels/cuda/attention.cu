// Causal attention over packed documents: the list of blocks, delta, and which kernel runs.
//
//   S = scale Q K^T, masked;  P = softmax(S);  O = P V;  lse = log sum exp S
//   delta = rowsum(dO * O);  dP = dO V^T;  dS = scale P (dP - delta)
//   dV = P^T dO;  dK = dS^T Q;  dQ = dS K
//
// Shapes    q, o (Nq, H, Dh); k, v (Nk, Hkv, Dh); lse, delta (Nq, H) f32; f32 or bf16, Dh <= 256.
// Launch    the list: one block of 256 threads; delta: a warp a row and head. A block of the
//           forward and of the dq kernel owns query rows of one head and walks over the keys that
//           they see; one of the dk, dv kernel owns key rows of one key/value head and walks over
//           the group's query heads and the queries that see them.
// Numerics  each output has one writer and one order of addition: no atomics, the same bits on
//           every run. delta is summed in fp32 by 32 lanes and a tree.
// Traffic   delta reads o and do once. The rest: the kernels' own files.
// Scratch   delta; 8 bytes a block of rows.
// See       kernels/cpu/attention.cpp, test tests/cuda/attention_test.cpp.
#include "attention.cuh"
#include "grist/core/memory.h"
#include "grist/ops/attention.h"

#include "grist/core/error.h"
#include "launch.h"

namespace grist::cuda {

namespace attention {
namespace {

constexpr int kThreads = 256;

// Block b of a document holds its rows [b * rows, ...). One block of threads; per round a document
// a thread.
__global__ void __launch_bounds__(kThreads)
    row_blocks_kernel(RowBlock* blocks, int* count, const std::int32_t* cu_seqlens, int documents,
                      int rows, bool last_first) {
  __shared__ int ends[kThreads];  // blocks of this round's documents up to and with each
  const int thread = static_cast<int>(threadIdx.x);
  int done = 0;
  for (int first = 0; first < documents; first += kThreads) {
    const int s = first + thread;
    const int length = s < documents ? cu_seqlens[s + 1] - cu_seqlens[s] : 0;
    ends[thread] = (length + rows - 1) / rows;
    __syncthreads();
    for (int step = 1; step < kThreads; step *= 2) {
      const int before = thread >= step ? ends[thread - step] : 0;
      __syncthreads();
      ends[thread] += before;
      __syncthreads();
    }
    const int total = ends[kThreads - 1];
    for (int i = thread; i < total; i += kThreads) {
      int low = 0, high = kThreads - 1;  // the first document whose end is beyond i
      while (low < high) {
        const int middle = (low + high) / 2;
        if (ends[middle] > i)
          high = middle;
        else
          low = middle + 1;
      }
      const int begin = low > 0 ? ends[low - 1] : 0;
      blocks[done + i] = {first + low, (last_first ? ends[low] - 1 - i : i - begin) * rows};
    }
    done += total;
    __syncthreads();
  }
  if (thread == 0) *count = done;
}

// A warp a row and head.
template <class T>
__global__ void __launch_bounds__(kThreads)
    delta_kernel(float* delta, const T* o, const T* do_, std::int64_t rows, int Dh) {
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float sum = 0.0F;
  for (int d = lane; d < Dh; d += kWarp)
    sum = fmaf(to_float(o[row * Dh + d]), to_float(do_[row * Dh + d]), sum);
  sum = warp_sum(sum);
  if (lane == 0) delta[row] = sum;
}

}  // namespace

RowBlocks make_row_blocks(const Context& ctx, const ConstTensorView& cu_seqlens, std::int64_t N,
                          int rows_per_block, Order order) {
  const std::int64_t documents = cu_seqlens.shape[0] - 1;
  const std::int64_t bound = N / rows_per_block + (documents < N ? documents : N);
  auto* blocks = ctx.scratch->allocate<RowBlock>(bound);
  auto* count = ctx.scratch->allocate<int>(1);
  launch(row_blocks_kernel, 1, kThreads, 0, stream_of(ctx), blocks, count,
         cu_seqlens.as<std::int32_t>(), static_cast<int>(documents), rows_per_block,
         order == Order::last_first);
  return {blocks, count, bound};
}

}  // namespace attention

namespace {

template <class T, class Operands, class Args> void set_inputs(Operands& out, const Args& a) {
  out.q = attention::device_pointer<T>(a.q);
  out.k = attention::device_pointer<T>(a.k);
  out.v = attention::device_pointer<T>(a.v);
  out.cu_seqlens_q = a.cu_seqlens_q.template as<std::int32_t>();
  out.cu_seqlens_k = a.cu_seqlens_k.template as<std::int32_t>();
  out.H = static_cast<int>(a.q.shape[1]);
  out.Hkv = static_cast<int>(a.k.shape[1]);
  out.Dh = static_cast<int>(a.q.shape[2]);
  out.scale = a.scale;
  if (out.Dh > attention::kMaxScalarHead)
    throw Error(ExitCode::internal, "attention on CUDA: heads of more than 256 elements");
}

}  // namespace

void attention_forward(const Context& ctx, const ops::AttentionForward& a) {
  const ScratchScope scope(ctx.scratch);
  for_dtype(a.q.dtype, [&](auto type) {
    using T = decltype(type);
    attention::ForwardOperands<T> f{};
    set_inputs<T>(f, a);
    f.o = attention::device_pointer<T>(a.o);
    f.lse = a.lse.as<float>();
    if constexpr (std::is_same_v<T, bf16>) {
      if (attention::hopper::forward(ctx, a, f)) return;
      if (attention::mma::forward(ctx, a, f)) return;
    }
    attention::scalar::forward<T>(ctx, a, f);
  });
}

void attention_backward(const Context& ctx, const ops::AttentionBackward& a) {
  const ScratchScope scope(ctx.scratch);
  for_dtype(a.q.dtype, [&](auto type) {
    using T = decltype(type);
    attention::BackwardOperands<T> b{};
    set_inputs<T>(b, a);
    b.dq = attention::device_pointer<T>(a.dq);
    b.dk = attention::device_pointer<T>(a.dk);
    b.dv = attention::device_pointer<T>(a.dv);
    b.o = attention::device_pointer<T>(a.o);
    b.do_ = attention::device_pointer<T>(a.do_);
    b.lse = a.lse.as<float>();
    const std::int64_t rows = a.lse.numel();
    b.delta = ctx.scratch->allocate<float>(rows);
    launch(attention::delta_kernel<T>, blocks_for(rows, attention::kThreads / kWarp),
           attention::kThreads, 0, stream_of(ctx), b.delta, b.o, b.do_, rows, b.Dh);
    if constexpr (std::is_same_v<T, bf16>) {
      if (attention::hopper::backward(ctx, a, b)) return;
      if (attention::mma::backward(ctx, a, b)) return;
    }
    attention::scalar::backward<T>(ctx, a, b);
  });
}

}  // namespace grist::cuda
