// Linear layer, CPU: grouped products with one group.
//
//   y = x W^T;  dx = dy W;  dw = dy^T x
//
// Shapes    x, dx (N, I); y, dy (N, O); W packed; dw (O, I); f32.
// Launch    a task is a tile of the output (matmul_tiles.cpp).
// Numerics  an output is one fused multiply-add chain in ascending index (matmul.h).
// Traffic   a tile's rows are copied once, packed weights read once a tile.
// See       kernels/cpu/matmul.h, test tests/ops/linear_test.cpp.
#include "grist/ops/linear.h"

#include <array>

#include "kernels/backends.h"
#include "kernels/cpu/matmul.h"

namespace grist::cpu {

namespace {
std::array<std::int32_t, 2> one_group(std::int64_t rows) {
  return {0, static_cast<std::int32_t>(rows)};
}
}  // namespace

void linear_forward(const Context& ctx, const ops::LinearForward& a) {
  const PackedWeight w = packed_weight(a.w);
  const auto offsets = one_group(a.x.shape[0]);
  multiply_grouped(ctx, {.c = a.y.as<float>(),
                         .a = {a.x.as<float>(), w.in},
                         .panels = w.forward(),
                         .offsets = offsets,
                         .cols = w.out,
                         .depth = w.in});
}

void linear_backward_input(const Context& ctx, const ops::LinearBackwardInput& a) {
  const PackedWeight w = packed_weight(a.w);
  const auto offsets = one_group(a.dy.shape[0]);
  multiply_grouped(ctx, {.c = a.dx.as<float>(),
                         .a = {a.dy.as<float>(), w.out},
                         .panels = w.backward(),
                         .offsets = offsets,
                         .cols = w.in,
                         .depth = w.out,
                         .accumulate = a.accumulate});
}

void linear_backward_weight(const Context& ctx, const ops::LinearBackwardWeight& a) {
  const std::int64_t out = a.dw.shape[0], in = a.dw.shape[1];
  const auto offsets = one_group(a.x.shape[0]);
  multiply_grouped_transposed(ctx, {.c = a.dw.as<float>(),
                                    .a = {a.dy.as<float>(), out},
                                    .b = {a.x.as<float>(), in},
                                    .offsets = offsets,
                                    .rows = out,
                                    .cols = in,
                                    .accumulate = a.accumulate});
}

}  // namespace grist::cpu
