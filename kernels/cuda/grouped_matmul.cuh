#pragma once
// Runs a Matmul by the kernel that fits its dtypes, shape and the device.
#include <algorithm>

#include "elementwise.cuh"
#include "launch.h"
#include "matmul_mma.cuh"
#include "matmul_simt.cuh"

namespace grist::cuda {

// Tiles of at most `height` rows that cover every expert's rows, in order, and after them empty
// ones up to the number that the host can know: tiles_of(R, height) + E. In scratch memory.
const RowTile* list_row_tiles(const Context& ctx, const std::int32_t* offsets, int experts,
                              int height, int bound);

// Blocks of a launch, and for experts that share C the list of their tiles.
template <Form kForm, int kRows, int kCols, class TA, class TB>
unsigned plan_tiles(const Context& ctx, Matmul<TA, TB>& p) {
  std::int64_t row_tiles = tiles_of(p.rows, kRows);
  if (kForm == Form::weight_gradient) {
    row_tiles *= p.experts;
  } else if (p.offsets != nullptr) {
    row_tiles += p.experts;
    p.tiles = list_row_tiles(ctx, p.offsets, p.experts, kRows, static_cast<int>(row_tiles));
  }
  return static_cast<unsigned>(row_tiles * tiles_of(p.cols, kCols));
}

// Whether multiply() takes the tensor cores.
template <Form kForm, class TA, class TB> bool takes_tensor_cores(const Matmul<TA, TB>& p) {
  if constexpr (std::is_same_v<TA, bf16> && std::is_same_v<TB, bf16>) return mma::fits<kForm>(p);
  return false;
}
// Width of its column tiles: over as many a kDot epilogue spreads a row's sum.
template <Form kForm, class TA, class TB> int column_tile(const Matmul<TA, TB>& p) {
  return takes_tensor_cores<kForm>(p) ? mma::kTile : simt::kTile;
}

// Needs ctx.scratch, whose scope must be the operation's.
template <Form kForm, class TA, class TB, class E>
void multiply(const Context& ctx, Matmul<TA, TB> p, const E& e) {
  if constexpr (std::is_same_v<TA, bf16> && std::is_same_v<TB, bf16>) {
    if (takes_tensor_cores<kForm>(p)) {
      const unsigned blocks = plan_tiles<kForm, mma::kTile, mma::kTile / E::kParts>(ctx, p);
      launch(mma::matmul_kernel<kForm, E>, blocks, mma::kThreads, sizeof(mma::Shared),
             stream_of(ctx), p, e);
      return;
    }
  }
  const unsigned blocks = plan_tiles<kForm, simt::kTile, simt::kTile / E::kParts>(ctx, p);
  launch(simt::matmul_kernel<kForm, TA, TB, E>, blocks, simt::kThreads, sizeof(simt::Shared),
         stream_of(ctx), p, e);
}

inline int to_int(std::int64_t n) {
  return static_cast<int>(n);
}
inline const std::int32_t* index_of(const ConstTensorView& v) {
  return v ? v.as<std::int32_t>() : nullptr;
}

}  // namespace grist::cuda
