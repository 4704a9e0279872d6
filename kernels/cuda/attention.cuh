#pragma once
// What the attention kernels share: documents, the list of blocks that says what each thread block
// works on, operands. Rows are counted from a document's first row, so what a row's result is made
// of does not depend on the documents around it.
#include <cstdint>

#include "device.cuh"
#include "grist/core/context.h"
#include "grist/ops/attention.h"
#include "kernels/backends.h"

namespace grist::cuda::attention {

// The queries and keys of one document; query i sees its first visible(i) keys.
struct Document {
  std::int64_t first_query, first_key;
  int num_queries, num_keys;

  __device__ int visible(int i) const {
    const int n = i + 1 + num_keys - num_queries;
    return n < 0 ? 0 : n < num_keys ? n : num_keys;
  }
  // The first query that sees key j.
  __device__ int first_seeing(int j) const {
    const int i = j - num_keys + num_queries;
    return i < 0 ? 0 : i;
  }
};

// Consecutive rows of one document (queries or keys, as the list says), from `begin` on.
struct RowBlock {
  int document, begin;
};

// Blocks of all documents, made on the device; the host knows only how many they are at most.
struct RowBlocks {
  const RowBlock* blocks;
  const int* count;
  std::int64_t bound;
};
// A document's longest block of work comes first: the last of the queries, the first of the keys.
enum class Order { first_first, last_first };
// cu_seqlens (S+1), its last value is N.
RowBlocks make_row_blocks(const Context& ctx, const ConstTensorView& cu_seqlens, std::int64_t N,
                          int rows_per_block, Order order);

template <class T> struct Operands {
  const T *q, *k, *v;
  const std::int32_t *cu_seqlens_q, *cu_seqlens_k;
  int H, Hkv, Dh;
  float scale;

  __device__ Document document(int s) const {
    return {cu_seqlens_q[s], cu_seqlens_k[s], cu_seqlens_q[s + 1] - cu_seqlens_q[s],
            cu_seqlens_k[s + 1] - cu_seqlens_k[s]};
  }
  // Where a row's head begins in q, o, do, dq; and in k, v, dk, dv.
  __device__ std::int64_t query_at(std::int64_t row, int h) const { return (row * H + h) * Dh; }
  __device__ std::int64_t key_at(std::int64_t row, int h) const { return (row * Hkv + h) * Dh; }
  // Elements from a row to the next.
  __device__ int query_stride() const { return H * Dh; }
  __device__ int key_stride() const { return Hkv * Dh; }
};

template <class T> struct ForwardOperands : Operands<T> {
  T* o;
  float* lse;
};

template <class T> struct BackwardOperands : Operands<T> {
  T *dq, *dk, *dv;
  const T *o, *do_;
  const float* lse;
  float* delta;  // (Nq, H): rowsum(do * o)
};

// The device's form of a view's data.
template <class T> T* device_pointer(const TensorView& v) {
  return static_cast<T*>(v.data);
}
template <class T> const T* device_pointer(const ConstTensorView& v) {
  return static_cast<const T*>(v.data);
}

// Heads of any size up to kMaxScalarHead in fp32 arithmetic; bf16 and fp32 storage.
constexpr int kMaxScalarHead = 256;
namespace scalar {
template <class T>
void forward(const Context& ctx, const ops::AttentionForward& a, const ForwardOperands<T>& f);
// delta is there.
template <class T>
void backward(const Context& ctx, const ops::AttentionBackward& a, const BackwardOperands<T>& b);
}  // namespace scalar

// bf16 on tensor cores. False, and nothing done, for head sizes that it does not know.
namespace mma {
bool forward(const Context& ctx, const ops::AttentionForward& a, const ForwardOperands<bf16>& f);
bool backward(const Context& ctx, const ops::AttentionBackward& a, const BackwardOperands<bf16>& b);
}  // namespace mma

// The same for Hopper, heads of 64 and 128 (sm90/). False, and nothing done, elsewhere.
namespace hopper {
bool forward(const Context& ctx, const ops::AttentionForward& a, const ForwardOperands<bf16>& f);
bool backward(const Context& ctx, const ops::AttentionBackward& a, const BackwardOperands<bf16>& b);
}  // namespace hopper

}  // namespace grist::cuda::attention
