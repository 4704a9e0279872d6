#include "kernels/cpu/attention.h"
#include "kernels/cpu/lanes.h"

namespace grist::cpu {

std::int64_t copied_floats(std::int64_t Dh) {
  return (Dh + kDepthBlock - 1) / kDepthBlock * kScoreFloats;
}

GRIST_CLONES void copy_rows(float* out, const Head<const float>& from, std::int64_t rows,
                            std::int64_t Dh, float scale) {
  for (std::int64_t d = 0; d < Dh; d += kLanes) {
    float* to = out + d / kDepthBlock * kScoreFloats + d % kDepthBlock;
    for (std::int64_t r = 0; r < rows; ++r) {
      Lanes x;
      load(x, from[r] + d, Dh - d);
      store(to + r * kRowStride, x * scale);
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
