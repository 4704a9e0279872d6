// Grouped matmuls of a MoE layer. Rows are gathered while a tile is loaded, SwiGLU and its gradient
// are applied to each tile of sums before it leaves the block. Hopper has kernels of its own
// (sm90/).
//
// Shapes    R rows of E experts, cut by expert_offsets (E+1); weights (E, 2F, D) and (E, D, F);
//           f32 or bf16, gradients of weights and of row weights f32.
// Launch    a block an output tile: 128 x 128 on tensor cores, else 64 x 64 (grouped_matmul.cuh).
//           drow_weight: a thread a row.
// Numerics  fp32 sums in ascending order of the summed index; a row's result depends on nothing but
//           that row and W. drow_weight: a row's column tiles in ascending order.
// Traffic   an operand is read once a row or column of tiles that meets it; z and a, or dz and
//           weighted_a, are written once.
// Scratch   16 bytes a row tile; backward through W2 also 4 bytes a row and column tile.
// See       kernels/cpu/experts.cpp, tests tests/cuda/experts_test.cpp,
//           tests/cuda/sm90_experts_test.cpp.
#include "grist/core/memory.h"
#include "grist/ops/experts.h"
#include "grist/ops/weight.h"
#include "grouped_matmul.cuh"
#include "kernels/backends.h"
#include "row_parts.h"
#include "sm90/grouped_matmul.h"

namespace grist::cuda {

namespace {

constexpr int kThreads = 256;

// Rows of x times each expert's W (E, out, in).
template <class T>
Matmul<T, T> rows_times_weight(const ConstTensorView& x, const ConstTensorView& row_token,
                               const ConstTensorView& offsets, const ops::WeightView& w,
                               std::int64_t rows, std::int64_t cols, std::int64_t depth) {
  return {.a = {elements<T>(x), x.shape[1], index_of(row_token)},
          .b = {reinterpret_cast<const T*>(w.data), w.shape[2]},
          .b_group = w.shape[1] * w.shape[2],
          .experts = to_int(w.shape[0]),
          .offsets = offsets.as<std::int32_t>(),
          .rows = to_int(rows),
          .cols = to_int(cols),
          .depth = to_int(depth)};
}

// Row r of an expert: the sum of its parts in ascending order. Other rows stay as they are.
__global__ void add_parts_kernel(RowParts p) {
  const std::int64_t r = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (r < p.offsets[0] || r >= p.offsets[p.experts]) return;
  float sum = p.partial[r];
  for (int i = 1; i < p.parts; ++i) sum += p.partial[i * p.R + r];
  p.sums[r] = sum;
}

}  // namespace

void add_parts(const Context& ctx, const RowParts& p) {
  launch(add_parts_kernel, blocks_for(p.R, kThreads), kThreads, 0, stream_of(ctx), p);
}

void expert_up_forward(const Context& ctx, const ops::ExpertUpForward& a) {
  if (sm90::expert_up_forward(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t R = a.a.shape[0], F = a.a.shape[1], D = a.x.shape[1];
  for_dtype(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    const auto p = rows_times_weight<T>(a.x, a.row_token, a.expert_offsets, a.w, R, F, D);
    multiply<Form::forward>(ctx, p, StoreSwiglu<T>{elements<T>(a.z), elements<T>(a.a), to_int(F)});
  });
}

void expert_down_forward(const Context& ctx, const ops::ExpertDownForward& a) {
  if (sm90::expert_down_forward(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t R = a.a.shape[0], F = a.a.shape[1], D = a.y.shape[1];
  for_dtype(a.a.dtype, [&](auto element) {
    using T = decltype(element);
    const auto p = rows_times_weight<T>(a.a, {}, a.expert_offsets, a.w, R, D, F);
    multiply<Form::forward>(ctx, p, Store<T>{elements<T>(a.y), D});
  });
}

void expert_down_backward(const Context& ctx, const ops::ExpertDownBackward& a) {
  if (sm90::expert_down_backward(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t R = a.weighted_a.shape[0], F = a.weighted_a.shape[1], D = a.dy.shape[1];
  for_dtype(a.dy.dtype, [&](auto element) {
    using T = decltype(element);
    const auto p = rows_times_weight<T>(a.dy, a.row_token, a.expert_offsets, a.w, R, F, D);
    const int parts = tiles_of(p.cols, column_tile<Form::backward_input>(p));
    auto* partial = ctx.scratch->allocate<float>(parts * R);
    multiply<Form::backward_input>(
        ctx, p,
        StoreSwigluGradient<T>{elements<T>(a.dz), elements<T>(a.weighted_a), partial,
                               elements<T>(a.z), a.row_weight.as<float>(), to_int(F), R});
    add_parts(ctx, {a.drow_weight.as<float>(), partial, p.offsets, p.experts, parts, R});
  });
}

void expert_up_backward(const Context& ctx, const ops::ExpertUpBackward& a) {
  if (sm90::expert_up_backward(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t R = a.dx.shape[0], D = a.dx.shape[1];
  for_dtype(a.dz.dtype, [&](auto element) {
    using T = decltype(element);
    const auto p = rows_times_weight<T>(a.dz, {}, a.expert_offsets, a.w, R, D, a.dz.shape[1]);
    multiply<Form::backward_input>(ctx, p, Store<T>{elements<T>(a.dx), D});
  });
}

void expert_weight_gradient(const Context& ctx, const ops::ExpertWeightGradient& a) {
  if (sm90::expert_weight_gradient(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t E = a.dw.shape[0], O = a.dw.shape[1], I = a.dw.shape[2];
  for_dtype(a.x.dtype, [&](auto element) {
    using T = decltype(element);
    const Matmul<T, T> p{.a = {elements<T>(a.dy), O, index_of(a.dy_token)},
                         .b = {elements<T>(a.x), I, index_of(a.x_token)},
                         .experts = to_int(E),
                         .offsets = a.expert_offsets.as<std::int32_t>(),
                         .rows = to_int(O),
                         .cols = to_int(I),
                         .depth = 0};
    multiply<Form::weight_gradient>(ctx, p, Store<float>{a.dw.as<float>(), I, O * I, a.accumulate});
  });
}

}  // namespace grist::cuda
