// Grouped matmuls of a MoE layer, CPU. SwiGLU and its gradient are applied to each tile while it
// is in the cache; rows are gathered while a tile's A is copied.
//
// Shapes    R rows of E experts, cut by expert_offsets (E+1); weights (E, 2F, D) and (E, D, F);
//           f32.
// Launch    a task is a tile of one expert's rows and some columns (matmul_tiles.cpp).
// Numerics  an output is one fused multiply-add chain; <h, a> of a row in pieces of 512 columns,
//           added in ascending order.
// Traffic   a tile's rows are copied once, packed weights read once a tile, z and a (dz and
//           weighted_a) written once.
// See       kernels/cpu/matmul.h, test tests/ops/experts_test.cpp.
#include "grist/ops/experts.h"

#include <algorithm>

#include "grist/core/memory.h"
#include "kernels/backends.h"
#include "kernels/cpu/matmul.h"

namespace grist::cpu {

namespace {

// Part of a row whose <h, a> is summed in one piece; pieces are added in ascending order. Part of
// the result's definition: changing it changes bits.
constexpr std::int64_t kDotColumns = 512;

std::span<const std::int32_t> offsets_of(const ConstTensorView& v) {
  return {v.as<std::int32_t>(), static_cast<std::size_t>(v.shape[0])};
}

const std::int32_t* index_of(const ConstTensorView& v) {
  return v ? v.as<std::int32_t>() : nullptr;
}

}  // namespace

void expert_up_forward(const Context& ctx, const ops::ExpertUpForward& a) {
  const ScratchScope scope(ctx.scratch);
  const IsaKernels& isa = native_kernels();
  const PackedWeight w = packed_weight(a.w);
  const std::int64_t F = a.a.shape[1];
  float* z = a.z.as<float>();
  float* activation = a.a.as<float>();
  const Rows x{a.x.as<float>(), w.in, index_of(a.row_token)};
  // Gate and up columns of a tile are cut alike, which needs up's first column to start a panel.
  const bool aligned = F % kPanelColumns == 0;
  const auto tiles = plan_tiles(ctx, {.offsets = offsets_of(a.expert_offsets),
                                      .cols = F,
                                      .max_cols = 256,
                                      .min_cols = aligned ? 64 : F});
  const auto panels = [&](const Tile& t) {
    return w.forward() + t.group * w.group_floats() + t.col_begin * w.in;
  };
  for_each_tile(ctx, tiles, [&](const Tile& t, const Tile* next, float* workspace) {
    const std::int64_t cols = t.col_end - t.col_begin;
    BlockMultiply m{.c = z + std::int64_t{t.row_begin} * 2 * F + t.col_begin,
                    .c_stride = 2 * F,
                    .a = x.from(t.row_begin),
                    .panels = panels(t),
                    .rows = t.row_end - t.row_begin,
                    .cols = aligned ? cols : 2 * F,
                    .depth = w.in};
    if (aligned) {
      m.second_c = m.c + F;
      m.second_panels = m.panels + F * w.in;
    }
    if (next != nullptr)
      m.next =
          next_multiply(x.from(next->row_begin), next->row_end - next->row_begin, panels(*next));
    multiply_block(isa, m, workspace);
    for (std::int64_t r = t.row_begin; r < t.row_end; ++r) {
      const float* gate = z + r * 2 * F + t.col_begin;
      isa.swiglu(activation + r * F + t.col_begin, gate, gate + F, cols);
    }
  });
}

void expert_down_forward(const Context& ctx, const ops::ExpertDownForward& a) {
  const PackedWeight w = packed_weight(a.w);
  multiply_grouped(ctx, {.c = a.y.as<float>(),
                         .a = {a.a.as<float>(), w.in},
                         .panels = w.forward(),
                         .group_floats = w.group_floats(),
                         .offsets = offsets_of(a.expert_offsets),
                         .cols = w.out,
                         .depth = w.in});
}

void expert_down_backward(const Context& ctx, const ops::ExpertDownBackward& a) {
  const ScratchScope scope(ctx.scratch);
  const IsaKernels& isa = native_kernels();
  const PackedWeight w = packed_weight(a.w);
  const std::int64_t R = a.dz.shape[0], F = w.in;
  const Rows dy{a.dy.as<float>(), w.out, index_of(a.row_token)};
  const float* z = a.z.as<float>();
  const float* row_weight = a.row_weight.as<float>();
  float* dz = a.dz.as<float>();
  float* weighted_a = a.weighted_a.as<float>();
  const auto offsets = offsets_of(a.expert_offsets);
  const auto tiles = plan_tiles(
      ctx, {.offsets = offsets, .cols = F, .max_cols = kDotColumns, .min_cols = kDotColumns});
  const std::int64_t pieces = (F + kDotColumns - 1) / kDotColumns;
  float* partial = ctx.scratch->allocate<float>(pieces * R);
  const auto panels = [&](const Tile& t) {
    return w.backward() + t.group * w.group_floats() + t.col_begin * w.out;
  };
  for_each_tile(ctx, tiles, [&](const Tile& t, const Tile* next, float* workspace) {
    const std::int64_t col = t.col_begin;
    // h waits where dgate will be.
    BlockMultiply m{.c = dz + std::int64_t{t.row_begin} * 2 * F + col,
                    .c_stride = 2 * F,
                    .a = dy.from(t.row_begin),
                    .panels = panels(t),
                    .rows = t.row_end - t.row_begin,
                    .cols = t.col_end - col,
                    .depth = w.out};
    if (next != nullptr)
      m.next =
          next_multiply(dy.from(next->row_begin), next->row_end - next->row_begin, panels(*next));
    multiply_block(isa, m, workspace);
    for (std::int64_t r = t.row_begin; r < t.row_end; ++r) {
      const std::int64_t at = r * 2 * F + col;
      partial[col / kDotColumns * R + r] =
          isa.swiglu_gradient({.dgate = dz + at,
                               .dup = dz + at + F,
                               .weighted_a = weighted_a + r * F + col,
                               .h = dz + at,
                               .gate = z + at,
                               .up = z + at + F,
                               .weight = row_weight[r],
                               .n = t.col_end - col});
    }
  });
  float* drow_weight = a.drow_weight.as<float>();
  for (std::int64_t r = offsets.front(); r < offsets.back(); ++r) {
    float sum = partial[r];
    for (std::int64_t p = 1; p < pieces; ++p) sum += partial[p * R + r];
    drow_weight[r] = sum;
  }
}

void expert_up_backward(const Context& ctx, const ops::ExpertUpBackward& a) {
  const PackedWeight w = packed_weight(a.w);
  multiply_grouped(ctx, {.c = a.dx.as<float>(),
                         .a = {a.dz.as<float>(), w.out},
                         .panels = w.backward(),
                         .group_floats = w.group_floats(),
                         .offsets = offsets_of(a.expert_offsets),
                         .cols = w.in,
                         .depth = w.out});
}

void expert_weight_gradient(const Context& ctx, const ops::ExpertWeightGradient& a) {
  const std::int64_t O = a.dw.shape[1], I = a.dw.shape[2];
  multiply_grouped_transposed(ctx, {.c = a.dw.as<float>(),
                                    .a = {a.dy.as<float>(), O, index_of(a.dy_token)},
                                    .b = {a.x.as<float>(), I, index_of(a.x_token)},
                                    .offsets = offsets_of(a.expert_offsets),
                                    .rows = O,
                                    .cols = I,
                                    .accumulate = a.accumulate});
}

}  // namespace grist::cpu
