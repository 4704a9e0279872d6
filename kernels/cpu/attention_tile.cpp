// Attention, CPU: what is done to one tile of kQueryBlock queries and kKeyBlock keys: packing,
// scores, maxima and sums of its rows.
//
// Shapes    rows of one head, Dh floats each, H * Dh apart; tiles kRowStride wide.
// Launch    inside a task.
// Numerics  a row's sum keeps sixteen lanes, added by a tree; scores are one chain over Dh.
// Traffic   rows read once, copies stay in cache.
// See       kernels/cpu/attention.h, test tests/ops/attention_test.cpp.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/lanes.h"

namespace grist::cpu {
namespace {

// Lanes of (a, b), numbered 0 to 31, for the exchange of blocks of W lanes in exchange().
template <int W> constexpr int kept(int i) {
  return (i & W) == 0 ? i : 16 + i - W;
}
template <int W> constexpr int moved(int i) {
  return (i & W) == 0 ? i + W : 16 + i;
}

// Rows r and r + W exchange their off-diagonal blocks of W lanes: done for W = 8, 4, 2, 1, it
// transposes.
template <int W> GRIST_INLINE void exchange(Lanes* x) {
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) {
    if ((r & W) != 0) continue;
    const Lanes a = x[r], b = x[r + W];
    x[r] = __builtin_shufflevector(a, b, kept<W>(0), kept<W>(1), kept<W>(2), kept<W>(3), kept<W>(4),
                                   kept<W>(5), kept<W>(6), kept<W>(7), kept<W>(8), kept<W>(9),
                                   kept<W>(10), kept<W>(11), kept<W>(12), kept<W>(13), kept<W>(14),
                                   kept<W>(15));
    x[r + W] = __builtin_shufflevector(a, b, moved<W>(0), moved<W>(1), moved<W>(2), moved<W>(3),
                                       moved<W>(4), moved<W>(5), moved<W>(6), moved<W>(7),
                                       moved<W>(8), moved<W>(9), moved<W>(10), moved<W>(11),
                                       moved<W>(12), moved<W>(13), moved<W>(14), moved<W>(15));
  }
}

// Transposes sixteen rows' lanes: afterwards x[i] holds lane i of every row.
GRIST_INLINE void transpose_lanes(Lanes* x) {
  exchange<8>(x);
  exchange<4>(x);
  exchange<2>(x);
  exchange<1>(x);
}

// out[k * 32 + j] = x[j][k] for j < 16, k < depth; rows from `rows` on count as 0. At most 16 x 16.
GRIST_CLONES void transpose(float* out, const Head<const float>& x, std::int64_t rows,
                            std::int64_t depth) {
  Lanes block[16];
  if (rows >= 16 && depth >= 16) {
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j) load(block[j], x[j]);
  } else {
    for (int j = 0; j < 16; ++j) {
      block[j] = Lanes{};
      if (j < rows) load(block[j], x[j], depth);
    }
  }
  transpose_lanes(block);
  if (depth >= 16) {
#pragma GCC unroll 16
    for (int k = 0; k < 16; ++k) store(out + k * kPanelColumns, block[k]);
  } else {
    for (int k = 0; k < depth; ++k) store(out + k * kPanelColumns, block[k]);
  }
}

}  // namespace

GRIST_CLONES void row_maxima(float* out, const float* scores, std::int64_t rows,
                             std::int64_t cols) {
  for (std::int64_t first = 0; first < rows; first += kLanes) {
    Lanes lanes[kLanes];
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const float* row = scores + std::min(first + j, rows - 1) * kRowStride;
      Lanes best;
      load(best, row);
      for (std::int64_t c = kLanes; c < cols; c += kLanes) {
        Lanes x;
        load(x, row + c);
        best = x > best ? x : best;
      }
      lanes[j] = best;
    }
    transpose_lanes(lanes);
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i)
        lanes[i] = lanes[i + width] > lanes[i] ? lanes[i + width] : lanes[i];
    store(out + first, lanes[0], rows - first);
  }
}

GRIST_CLONES void row_sums(float* out, const float* scores, std::int64_t rows, std::int64_t cols) {
  for (std::int64_t first = 0; first < rows; first += kLanes) {
    Lanes lanes[kLanes];
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const float* row = scores + std::min(first + j, rows - 1) * kRowStride;
      Lanes total{};
      for (std::int64_t c = 0; c < cols; c += kLanes) {
        Lanes x;
        load(x, row + c);
        total += x;
      }
      lanes[j] = total;
    }
    transpose_lanes(lanes);
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    store(out + first, lanes[0], rows - first);
  }
}

std::int64_t copied_floats(std::int64_t Dh) {
  return (Dh + kDepthBlock - 1) / kDepthBlock * kScoreFloats;
}

GRIST_CLONES void copy_rows(float* out, const Head<const float>& from, std::int64_t rows,
                            std::int64_t Dh, float scale) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t d = 0; d < Dh; d += kLanes) {
      float* to = out + d / kDepthBlock * kScoreFloats + d % kDepthBlock;
      Lanes x;
      load(x, from[r] + d, Dh - d);
      store(to + r * kRowStride, x * scale);
    }
  }
}

void pack_key_columns(float* out, const Head<const float>& x, const std::int64_t (&span)[2],
                      std::int64_t Dh) {
  for (std::int64_t key = span[0]; key < span[1]; key += kPanelColumns, out += kPanelColumns * Dh) {
    for (std::int64_t d = 0; d < Dh; d += 16) {
      for (std::int64_t j = 0; j < kPanelColumns; j += 16) {
        const Head<const float> block{x[key + j] + d, x.stride};
        transpose(out + d * kPanelColumns + j, block, span[1] - key - j, Dh - d);
      }
    }
  }
}

std::int64_t block_offset(std::int64_t key, std::int64_t Dh) {
  return panel_floats(key, Dh);
}

void pack_key_blocks(float* out, const Head<const float>& x, const std::int64_t (&span)[2],
                     std::int64_t Dh) {
  for (std::int64_t key = span[0]; key < span[1]; key += kKeyBlock) {
    pack_panels(out + block_offset(key - span[0], Dh), {x[key], x.stride},
                std::min(kKeyBlock, span[1] - key), Dh);
  }
}

void multiply_scores(const ScoreMultiply& m, const ScoreTile& tile) {
  const IsaKernels& isa = native_kernels();
  TileBlock t{.c = m.c,
              .c_stride = kRowStride,
              .a = m.rows,
              .a_stride = kRowStride,
              .b = m.columns + (tile.key - m.span_begin) * m.Dh,
              .b_stride = m.Dh * kPanelColumns,
              .rows = tile.rows,
              .cols = (tile.cols + kPanelColumns - 1) / kPanelColumns * kPanelColumns,
              .depth = 0,
              .accumulate = false};
  for (std::int64_t k = 0; k < m.Dh; k += kDepthBlock) {
    t.depth = std::min(kDepthBlock, m.Dh - k);
    isa.multiply_rows(t);
    t.a += kScoreFloats;
    t.b += kDepthBlock * kPanelColumns;
    t.accumulate = true;
  }
}

}  // namespace grist::cpu
