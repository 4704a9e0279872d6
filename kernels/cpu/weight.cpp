// Packed weights, CPU. One copy for each direction of use, made once per optimizer step: packing
// inside the products would cost a thin expert more than its arithmetic.
//
// Shapes    (out, in) or (experts, out, in) f32 -> panels of 32 columns of W^T and of W (matmul.h).
// Launch    a task packs one panel.
// Numerics  copies.
// Traffic   the master values read twice, both copies written once.
// See       kernels/cpu/matmul.h, test tests/ops/linear_test.cpp.
#include "grist/ops/weight.h"

#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cpu/matmul.h"

namespace grist::cpu {

PackedWeight packed_weight(const ops::WeightView& w) {
  const int rank = w.shape.rank();
  return {.data = reinterpret_cast<const float*>(w.data),
          .experts = rank == 3 ? w.shape[0] : 1,
          .out = w.shape[rank - 2],
          .in = w.shape[rank - 1]};
}

std::size_t weight_bytes(DType, const Shape& shape) {
  const PackedWeight p = packed_weight({.shape = shape});
  return static_cast<std::size_t>(p.experts * p.group_floats()) * sizeof(float);
}

void refresh_weight(const Context& ctx, const ops::RefreshWeight& a) {
  const PackedWeight p = packed_weight(a.out);
  auto* packed = reinterpret_cast<float*>(a.out.data);
  const auto* master = a.master.as<float>();
  // A task packs one panel: the first of an expert's panels are those of W^T.
  const std::int64_t forward = panel_floats(1, p.out) / kPanelColumns;
  const std::int64_t panels = forward + panel_floats(1, p.in) / kPanelColumns;
  parallel_for(ctx, p.experts * panels, [&](std::int64_t i, int) {
    const std::int64_t expert = i / panels, panel = i % panels;
    const float* w = master + expert * p.out * p.in;
    float* to = packed + expert * p.group_floats();
    if (panel < forward) {
      const std::int64_t col = panel * kPanelColumns;
      pack_panels_transposed(to + col * p.in, {w + col * p.in, p.in}, p.in,
                             std::min(kPanelColumns, p.out - col));
    } else {
      const std::int64_t col = (panel - forward) * kPanelColumns;
      pack_panels(to + panel_floats(p.in, p.out) + col * p.out, {w + col, p.in}, p.out,
                  std::min(kPanelColumns, p.in - col));
    }
  });
}

}  // namespace grist::cpu
