// The Hopper matmuls that sum over rows: gradients of weights.
//
// Shapes    those of ops/experts.h and ops/linear.h, bf16 operands, widths multiples of 8; dw f32.
// Launch    weight_matmul.cuh: 384 threads a block, as many blocks as multiprocessors.
// Numerics  those of weight_matmul.cuh.
// Traffic   those of weight_matmul.cuh.
// See       kernels/cuda/experts.cu, kernels/cuda/linear.cu, test tests/cuda/sm90_experts_test.cpp.
#include "grist/ops/experts.h"
#include "grist/ops/linear.h"
#include "weight_matmul.cuh"

#include <algorithm>

#include "grouped_matmul.h"
#include "kernels/cuda/launch.h"

namespace grist::cuda::sm90 {

namespace {

WeightOperand operand(const ConstTensorView& v, const ConstTensorView& token) {
  WeightOperand o = {};
  if (!token && v.numel() > 0) o.map = swizzled_map(v.data, v.shape, kDepth);
  o.data = static_cast<const bf16*>(v.data);
  o.token = token ? token.as<int>() : nullptr;
  o.width = static_cast<int>(v.shape[1]);
  return o;
}

void run(const Context& ctx, const WeightMatmul& p) {
  const std::int64_t tiles = static_cast<std::int64_t>(p.experts) *
                             blocks_for(p.dy.width, kTileRows) *
                             blocks_for(p.x.width, WeightMemory::kWidth);
  const auto blocks = std::min<std::int64_t>(tiles, device_info().multiprocessors);
  auto* kernel = p.dy.token != nullptr
                     ? (p.x.token != nullptr ? weight_matmul_kernel<true, true>
                                             : weight_matmul_kernel<true, false>)
                     : (p.x.token != nullptr ? weight_matmul_kernel<false, true>
                                             : weight_matmul_kernel<false, false>);
  launch(kernel, static_cast<unsigned>(blocks), kBlockThreads, sizeof(WeightMemory), stream_of(ctx),
         p);
}

}  // namespace

bool expert_weight_gradient(const Context& ctx, const ops::ExpertWeightGradient& a) {
  if (!fit(a.dy, a.x)) return false;
  const auto E = static_cast<int>(a.expert_offsets.shape[0] - 1);
  run(ctx, {operand(a.dy, a.dy_token), operand(a.x, a.x_token), a.dw.as<float>(),
            a.expert_offsets.as<int>(), E, 0, a.accumulate});
  return true;
}

bool linear_backward_weight(const Context& ctx, const ops::LinearBackwardWeight& a) {
  if (!fit(a.dy, a.x)) return false;
  const auto N = static_cast<int>(a.x.shape[0]);
  run(ctx, {operand(a.dy, {}), operand(a.x, {}), a.dw.as<float>(), nullptr, 1, N, a.accumulate});
  return true;
}

}  // namespace grist::cuda::sm90
