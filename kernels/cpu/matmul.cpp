// Matrix multiplication, CPU: choice of instruction set, packing, blocks.
//
// A block of A is copied into a workspace 256 of the summed dim at a time (gathering its rows on
// the way), then every panel of B is multiplied with all its rows.
//
// Shapes    A (rows, depth), rows gathered or not; B in panels of 32 columns (matmul.h); f32.
// Launch    inside a task: a block is one thread's.
// Numerics  each output is one fused multiply-add chain in ascending index.
// Traffic   the 32 KiB of a panel's part stay in L1, the copy of A in L2; C is stored and loaded
//           again between parts, which keeps each output one chain.
// See       kernels/cpu/matmul.h, test tests/ops/linear_test.cpp.
#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <cstring>

namespace grist::cpu {

// ---- instruction sets -------------------------------------------------------------------------

extern const IsaKernels kPortableKernels;
#ifdef GRIST_X86_KERNELS
extern const IsaKernels kAvx2Kernels;
extern const IsaKernels kAvx512Kernels;
#endif

const IsaKernels* isa_kernels(Isa isa) {
#ifdef GRIST_X86_KERNELS
  if (isa == Isa::avx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? &kAvx512Kernels
                                                                                   : nullptr;
  }
  if (isa == Isa::avx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kAvx2Kernels
                                                                           : nullptr;
  }
#endif
  return isa == Isa::portable ? &kPortableKernels : nullptr;
}

const IsaKernels& native_kernels() {
  static const IsaKernels& best = []() -> const IsaKernels& {
    for (const Isa isa : {Isa::avx512, Isa::avx2}) {
      if (const IsaKernels* k = isa_kernels(isa)) return *k;
    }
    return kPortableKernels;
  }();
  return best;
}

// ---- packing ----------------------------------------------------------------------------------

std::int64_t panel_floats(std::int64_t depth, std::int64_t cols) {
  return (cols + kPanelColumns - 1) / kPanelColumns * kPanelColumns * depth;
}

void pack_panels(float* out, const Rows& b, std::int64_t depth, std::int64_t cols) {
  for (std::int64_t col = 0; col < cols; col += kPanelColumns) {
    const std::int64_t n = std::min(kPanelColumns, cols - col);
    for (std::int64_t k = 0; k < depth; ++k, out += kPanelColumns) {
      const float* from = b[k] + col;
      if (n == kPanelColumns) {
        std::memcpy(out, from, kPanelColumns * sizeof(float));
      } else {
        std::fill(std::copy_n(from, n, out), out + kPanelColumns, 0.0F);
      }
    }
  }
}

void pack_panels_transposed(float* out, const Rows& w, std::int64_t depth, std::int64_t cols) {
  constexpr std::int64_t kRun = 16;  // one cache line of each source row at a time
  for (std::int64_t col = 0; col < cols; col += kPanelColumns, out += depth * kPanelColumns) {
    const std::int64_t n = std::min(kPanelColumns, cols - col);
    if (n < kPanelColumns) std::fill_n(out, depth * kPanelColumns, 0.0F);
    for (std::int64_t begin = 0; begin < depth; begin += kRun) {
      const std::int64_t end = std::min(depth, begin + kRun);
      for (std::int64_t j = 0; j < n; ++j) {
        const float* from = w[col + j];
        for (std::int64_t k = begin; k < end; ++k) out[k * kPanelColumns + j] = from[k];
      }
    }
  }
}

// ---- inside one task --------------------------------------------------------------------------

namespace {
constexpr std::int64_t kTransposedFloats = 256 * kDepthBlock;  // of packed B
static_assert(kMaxTransposedRows <= kRowStride);

std::int64_t kibs(std::int64_t floats) {
  return (floats + 255) / 256;
}
}  // namespace

NextBlock next_multiply(const Rows& a, std::int64_t rows, const float* panels) {
  return {
      .a = {a.data, a.stride, a.index, std::min(kMaxBlockRows, rows)}, .b = {}, .panel = panels};
}

NextBlock next_transposed(const Rows& a, std::int64_t rows, const Rows& b, std::int64_t cols,
                          std::int64_t depth) {
  const std::int64_t count = std::min(kDepthBlock, depth);
  return {.a = {a.data, a.stride, a.index, count, kibs(std::min(kMaxTransposedRows, rows))},
          .b = {b.data, b.stride, b.index, count, kibs(cols)}};
}

std::int64_t block_workspace_floats() {
  // Packed B: each panel one row longer than it is deep; at most 64 Ki columns of depth 1.
  return std::max(kMaxBlockRows * kRowStride, kDepthBlock * kRowStride + 2 * kTransposedFloats);
}

namespace {

// Copies rows x depth of A from its column k into the workspace.
void copy_rows(float* workspace, const Rows& a, std::int64_t rows, std::int64_t k,
               std::int64_t depth) {
  if (depth == 0) return;
  const auto bytes = static_cast<std::size_t>(depth) * sizeof(float);
  for (std::int64_t i = 0; i < rows; ++i) std::memcpy(workspace + i * kRowStride, a[i] + k, bytes);
}

// The hint for the block that begins at row `row` and column k of A.
NextBlock next_block(const BlockMultiply& m, std::int64_t row, std::int64_t k) {
  if (k >= m.depth) row += kMaxBlockRows, k = 0;
  if (row >= m.rows) return m.next;
  Rows a = m.a.from(row);
  a.data += k;
  return next_multiply(a, m.rows - row, m.panels + k * kPanelColumns);
}

// Packs `cols` columns of B, depth rows, panel_stride floats apart. Row by row: memory likes that
// better than panel by panel.
void pack_rows(float* panels, std::int64_t panel_stride, const Rows& b, std::int64_t depth,
               std::int64_t cols) {
  const std::int64_t whole = cols / kPanelColumns * kPanelColumns;
  for (std::int64_t k = 0; k < depth; ++k) {
    const float* from = b[k];
    float* to = panels + k * kPanelColumns;
    for (std::int64_t col = 0; col < whole; col += kPanelColumns, to += panel_stride)
      std::memcpy(to, from + col, kPanelColumns * sizeof(float));
    if (whole < cols) std::fill(std::copy(from + whole, from + cols, to), to + kPanelColumns, 0.0F);
  }
}

}  // namespace

void multiply_block(const IsaKernels& isa, const BlockMultiply& m, float* workspace) {
  for (std::int64_t row = 0; row < m.rows; row += kMaxBlockRows) {
    const std::int64_t rows = std::min(kMaxBlockRows, m.rows - row);
    // Depth 0 still has to write the zeros.
    for (std::int64_t k = 0; k == 0 || k < m.depth; k += kDepthBlock) {
      TileBlock t{.c = m.c + row * m.c_stride,
                  .c_stride = m.c_stride,
                  .a = workspace,
                  .a_stride = kRowStride,
                  .b = m.panels + k * kPanelColumns,
                  .b_stride = m.depth * kPanelColumns,
                  .rows = rows,
                  .cols = m.cols,
                  .depth = std::min(kDepthBlock, m.depth - k),
                  .accumulate = m.accumulate || k > 0};
      copy_rows(workspace, m.a.from(row), rows, k, t.depth);
      const NextBlock next = next_block(m, row, k + kDepthBlock);
      if (m.second_c == nullptr) {
        t.next = next;
        isa.multiply_rows(t);
        continue;
      }
      t.next.panel = m.second_panels + k * kPanelColumns;
      isa.multiply_rows(t);
      t.next = next;
      t.c = m.second_c + row * m.c_stride;
      t.b = m.second_panels + k * kPanelColumns;
      isa.multiply_rows(t);
    }
  }
}

namespace {

// The hint during the block t at (row, col) and part k of the summed dim: the block that follows.
NextBlock next_block(const TransposedBlockMultiply& m, const TileBlock& t, std::int64_t row,
                     std::int64_t col, std::int64_t k) {
  if (k + kDepthBlock < m.depth) {
    k += kDepthBlock;
  } else if (row + kMaxTransposedRows < m.rows) {
    row += kMaxTransposedRows, k = 0;
  } else if (col + t.cols < m.cols) {
    col += t.cols, row = 0, k = 0;
  } else {
    return m.next;
  }
  Rows a = m.a.from(k), b = m.b.from(k);
  a.data += row;
  b.data += col;
  return next_transposed(a, m.rows - row, b, std::min(t.cols, m.cols - col), m.depth - k);
}

}  // namespace

void multiply_transposed_block(const IsaKernels& isa, const TransposedBlockMultiply& m,
                               float* workspace) {
  float* panels = workspace + kDepthBlock * kRowStride;
  // As many columns as keep the packed part of B within 256 KiB.
  const std::int64_t most_depth = std::clamp<std::int64_t>(m.depth, 1, kDepthBlock);
  const std::int64_t max_cols = kTransposedFloats / most_depth / kPanelColumns * kPanelColumns;
  for (std::int64_t col = 0; col < m.cols; col += max_cols) {
    for (std::int64_t row = 0; row < m.rows; row += kMaxTransposedRows) {
      for (std::int64_t k = 0; k == 0 || k < m.depth; k += kDepthBlock) {
        const std::int64_t depth = std::min(kDepthBlock, m.depth - k);
        Rows b = m.b.from(k);
        b.data += col;
        TileBlock t{.c = m.c + row * m.c_stride + col,
                    .c_stride = m.c_stride,
                    .a = workspace,
                    .a_stride = kRowStride,
                    .b = panels,
                    .b_stride = (depth + 1) * kPanelColumns,
                    .rows = std::min(kMaxTransposedRows, m.rows - row),
                    .cols = std::min(max_cols, m.cols - col),
                    .depth = depth,
                    .accumulate = m.accumulate || k > 0};
        t.next = next_block(m, t, row, col, k);
        copy_rows(workspace, m.a.from(k), depth, row, t.rows);
        pack_rows(panels, t.b_stride, b, depth, t.cols);
        isa.multiply_columns(t);
      }
    }
  }
}

}  // namespace grist::cpu
