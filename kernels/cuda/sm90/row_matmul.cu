// The Hopper matmuls with an output row for each row of an expert: both projections, forward, and
// the gradients of their inputs.
//
// Shapes    those of ops/experts.h and ops/linear.h, bf16, widths multiples of 8.
// Launch    row_matmul.cuh: 384 threads a block, as many blocks as multiprocessors. drow_weight: a
//           thread a row.
// Numerics  those of row_matmul.cuh; drow_weight is the sum of a row's column tiles, ascending.
// Traffic   those of row_matmul.cuh; drow_weight 4 bytes a row and column tile.
// See       kernels/cuda/experts.cu, kernels/cuda/linear.cu, test tests/cuda/sm90_experts_test.cpp.
#include "grist/core/memory.h"
#include "grist/ops/experts.h"
#include "grist/ops/linear.h"
#include "grist/ops/weight.h"
#include "row_matmul.cuh"

#include <algorithm>

#include "epilogue_backward.cuh"
#include "grouped_matmul.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_parts.h"

namespace grist::cuda::sm90 {

namespace {

ConstTensorView view_of(const ops::WeightView& w) {
  return {w.data, w.dtype, w.shape};
}
template <class T> const T* data_of(const ConstTensorView& v) {
  return static_cast<const T*>(v.data);
}

// What the four operations have in common.
struct Call {
  ConstTensorView x;               // (R, depth), or (N, depth) with row_token
  ConstTensorView row_token = {};  // (R) i32 or empty
  const int* expert_offsets;       // null: one expert has all rows
  std::int64_t rows, experts, depth, outputs;
  ConstTensorView w;  // as Weights wants it
};

template <class Epilogue, Weights kWeights, bool kGather>
void run_tiles(const Context& ctx, const Call& c, const typename Epilogue::Operands& out) {
  if (c.rows == 0) return;
  const std::int64_t columns = (c.outputs + Epilogue::kOutputs - 1) / Epilogue::kOutputs;
  RowMatmul<Epilogue> p = {};
  if constexpr (kGather) {
    p.x = data_of<bf16>(c.x);
    p.row_token = c.row_token.as<int>();
  } else {
    p.x_map = swizzled_map(c.x.data, {c.rows, c.depth}, kTileRows);
  }
  p.w_map = swizzled_map(c.w.data, c.w.shape, weight_box<Epilogue>(kWeights));
  p.list = list_row_blocks(ctx, c.expert_offsets, c.experts, c.rows);
  p.depth = static_cast<int>(c.depth);
  p.columns = static_cast<int>(columns);
  p.out = out;
  const auto blocks = std::min<std::int64_t>(most_row_blocks(c.rows, c.experts) * columns,
                                             device_info().multiprocessors);
  launch(row_matmul_kernel<Epilogue, kWeights, kGather>, static_cast<unsigned>(blocks),
         kBlockThreads, sizeof(RowMemory<Epilogue>), stream_of(ctx), p);
}

template <class Epilogue, Weights kWeights>
void run(const Context& ctx, const Call& c, const typename Epilogue::Operands& out) {
  if (c.row_token)
    run_tiles<Epilogue, kWeights, true>(ctx, c, out);
  else
    run_tiles<Epilogue, kWeights, false>(ctx, c, out);
}

}  // namespace

// ---- experts ------------------------------------------------------------------------------------

bool expert_up_forward(const Context& ctx, const ops::ExpertUpForward& a) {
  const std::int64_t R = a.a.shape[0], F = a.a.shape[1], D = a.x.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  if (!fit(a.z, a.a, a.x, view_of(a.w))) return false;
  const ScratchScope scope(ctx.scratch);
  const ConstTensorView pairs(a.w.data, a.w.dtype, {2 * E, F, D});
  run<Swiglu, Weights::pairs>(
      ctx, {a.x, a.row_token, a.expert_offsets.as<int>(), R, E, D, F, pairs},
      {static_cast<bf16*>(a.z.data), static_cast<bf16*>(a.a.data), static_cast<int>(F)});
  return true;
}

bool expert_down_forward(const Context& ctx, const ops::ExpertDownForward& a) {
  const std::int64_t R = a.a.shape[0], F = a.a.shape[1], D = a.y.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  if (!fit(a.y, a.a, view_of(a.w))) return false;
  const ScratchScope scope(ctx.scratch);
  run_tiles<Store, Weights::rows, false>(
      ctx, {a.a, {}, a.expert_offsets.as<int>(), R, E, F, D, view_of(a.w)},
      {static_cast<bf16*>(a.y.data), static_cast<int>(D)});
  return true;
}

bool expert_down_backward(const Context& ctx, const ops::ExpertDownBackward& a) {
  const std::int64_t R = a.weighted_a.shape[0], F = a.weighted_a.shape[1], D = a.dy.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  if (!fit(a.dz, a.weighted_a, a.dy, a.z, view_of(a.w))) return false;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t columns = (F + SwigluBackward::kOutputs - 1) / SwigluBackward::kOutputs;
  auto* row_sums = ctx.scratch->allocate<float>(columns * R);
  const int* offsets = a.expert_offsets.as<int>();
  run<SwigluBackward, Weights::lines>(
      ctx, {a.dy, a.row_token, offsets, R, E, D, F, view_of(a.w)},
      {static_cast<bf16*>(a.dz.data), static_cast<bf16*>(a.weighted_a.data), row_sums,
       data_of<bf16>(a.z), a.row_weight.as<float>(), static_cast<int>(F), R});
  add_parts(ctx, {a.drow_weight.as<float>(), row_sums, offsets, static_cast<int>(E),
                  static_cast<int>(columns), R});
  return true;
}

bool expert_up_backward(const Context& ctx, const ops::ExpertUpBackward& a) {
  const std::int64_t R = a.dz.shape[0], F2 = a.dz.shape[1], D = a.dx.shape[1];
  const std::int64_t E = a.expert_offsets.shape[0] - 1;
  if (!fit(a.dx, a.dz, view_of(a.w))) return false;
  const ScratchScope scope(ctx.scratch);
  run_tiles<Store, Weights::lines, false>(
      ctx, {a.dz, {}, a.expert_offsets.as<int>(), R, E, F2, D, view_of(a.w)},
      {static_cast<bf16*>(a.dx.data), static_cast<int>(D)});
  return true;
}

// ---- one expert ---------------------------------------------------------------------------------

bool linear_forward(const Context& ctx, const ops::LinearForward& a) {
  const std::int64_t N = a.x.shape[0], I = a.x.shape[1], O = a.y.shape[1];
  if (!fit(a.y, a.x, view_of(a.w))) return false;
  const ScratchScope scope(ctx.scratch);
  const ConstTensorView w(a.w.data, a.w.dtype, {1, O, I});
  run_tiles<Store, Weights::rows, false>(ctx, {a.x, {}, nullptr, N, 1, I, O, w},
                                         {static_cast<bf16*>(a.y.data), static_cast<int>(O)});
  return true;
}

bool linear_backward_input(const Context& ctx, const ops::LinearBackwardInput& a) {
  const std::int64_t N = a.dy.shape[0], O = a.dy.shape[1], I = a.dx.shape[1];
  if (a.accumulate || !fit(a.dx, a.dy, view_of(a.w))) return false;
  const ScratchScope scope(ctx.scratch);
  const ConstTensorView w(a.w.data, a.w.dtype, {1, O, I});
  run_tiles<Store, Weights::lines, false>(ctx, {a.dy, {}, nullptr, N, 1, O, I, w},
                                          {static_cast<bf16*>(a.dx.data), static_cast<int>(I)});
  return true;
}

}  // namespace grist::cuda::sm90
