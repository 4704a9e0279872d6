// RMSNorm, CPU.
//
//   h = x + residual,   y = h * rstd * w,   rstd = 1 / sqrt(mean(h^2) + eps)
//   with g = w * dy and c = mean(g * h) * rstd^2:   dh = dresidual + rstd * (g - c * h)
//   dw += sum over rows of dy * h * rstd
//
// Shapes    x, residual, h, y, dy, dh (N, D); w, dw (D); rstd (N); f32.
// Launch    a task is a chunk of 64 rows; the chunks of dw are added by tasks of 128 columns.
// Numerics  fp32; a row's sums keep sixteen lanes and a fixed tree, so a row depends on itself
//           alone. dw: chunks of 64 rows, ascending inside a chunk, chunks added in order.
// Traffic   every operand once; the second pass over a row hits L1.
// See       kernels/cuda/norm.cu, test tests/ops/norm_test.cpp.
#include <algorithm>
#include <cmath>

#include "grist/core/memory.h"
#include "grist/ops/norm.h"
#include "kernels/backends.h"
#include "kernels/cpu/lanes.h"

namespace grist::cpu {
namespace {

constexpr std::int64_t kChunkRows = 64;

struct ForwardRow {
  float* y;
  float* h;  // may be x or residual; null: h is x
  const float* x;
  const float* residual;  // may be null
  const float* w;
};

// Returns rstd.
GRIST_CLONES float forward_row(const ForwardRow& r, std::int64_t D, float eps) {
  Lanes squares{};
  for (std::int64_t d = 0; d < D; d += kLanes) {
    Lanes h;
    load(h, r.x + d, D - d);
    if (r.residual != nullptr) {
      Lanes residual;
      load(residual, r.residual + d, D - d);
      h += residual;
    }
    if (r.h != nullptr) store(r.h + d, h, D - d);
    squares += h * h;
  }
  const float rstd = 1.0F / std::sqrt(sum_lanes(squares) / static_cast<float>(D) + eps);
  const float* source = r.h != nullptr ? r.h : r.x;
  for (std::int64_t d = 0; d < D; d += kLanes) {
    Lanes h, w;
    load(h, source + d, D - d);
    load(w, r.w + d, D - d);
    store(r.y + d, h * rstd * w, D - d);
  }
  return rstd;
}

struct BackwardRow {
  float* dh;  // may be dresidual or dy
  float* dw;  // this chunk's partial sum, added to
  const float* dy;
  const float* dresidual;  // may be null
  const float* h;
  const float* w;
  float rstd;
};

GRIST_CLONES void backward_row(const BackwardRow& r, std::int64_t D) {
  Lanes products{};
  for (std::int64_t d = 0; d < D; d += kLanes) {
    Lanes dy, h, w, dw;
    load(dy, r.dy + d, D - d);
    load(h, r.h + d, D - d);
    load(w, r.w + d, D - d);
    load(dw, r.dw + d, D - d);
    products += (dy * w) * h;
    store(r.dw + d, dw + dy * (h * r.rstd), D - d);
  }
  const float c = sum_lanes(products) / static_cast<float>(D) * (r.rstd * r.rstd);
  for (std::int64_t d = 0; d < D; d += kLanes) {
    Lanes dy, h, w;
    load(dy, r.dy + d, D - d);
    load(h, r.h + d, D - d);
    load(w, r.w + d, D - d);
    Lanes dh = (dy * w - h * c) * r.rstd;
    if (r.dresidual != nullptr) {
      Lanes dresidual;
      load(dresidual, r.dresidual + d, D - d);
      dh += dresidual;
    }
    store(r.dh + d, dh, D - d);
  }
}

// sum[d] += partials[0][d], then partials[1][d], ... for d in [begin, end).
GRIST_CLONES void add_partials(float* total, const float* partials, std::int64_t count,
                               std::int64_t D, std::int64_t begin, std::int64_t end) {
  for (std::int64_t d = begin; d < end; d += kLanes) {
    Lanes acc;
    load(acc, total + d, end - d);
    for (std::int64_t i = 0; i < count; ++i) {
      Lanes p;
      load(p, partials + i * D + d, end - d);
      acc += p;
    }
    store(total + d, acc, end - d);
  }
}

}  // namespace

void rms_norm_forward(const Context& ctx, const ops::RmsNormForward& a) {
  const std::int64_t N = a.x.shape[0];
  const std::int64_t D = a.x.shape[1];
  const auto* x = a.x.as<float>();
  const auto* w = a.w.as<float>();
  const float* residual = a.residual ? a.residual.as<float>() : nullptr;
  auto* y = a.y.as<float>();
  float* h = a.h ? a.h.as<float>() : nullptr;
  auto* rstd = a.rstd.as<float>();
  const std::int64_t chunks = (N + kChunkRows - 1) / kChunkRows;
  parallel_for(ctx, chunks, [&](std::int64_t chunk, int) {
    const std::int64_t end = std::min(N, (chunk + 1) * kChunkRows);
    for (std::int64_t n = chunk * kChunkRows; n < end; ++n) {
      const std::int64_t at = n * D;
      rstd[n] = forward_row({.y = y + at,
                             .h = h != nullptr ? h + at : nullptr,
                             .x = x + at,
                             .residual = residual != nullptr ? residual + at : nullptr,
                             .w = w},
                            D, a.eps);
    }
  });
}

void rms_norm_backward(const Context& ctx, const ops::RmsNormBackward& a) {
  const std::int64_t N = a.h.shape[0];
  const std::int64_t D = a.h.shape[1];
  const auto* dy = a.dy.as<float>();
  const auto* h = a.h.as<float>();
  const auto* w = a.w.as<float>();
  const auto* rstd = a.rstd.as<float>();
  const float* dresidual = a.dresidual ? a.dresidual.as<float>() : nullptr;
  auto* dh = a.dh.as<float>();
  auto* dw = a.dw.as<float>();
  const ScratchScope scope(ctx.scratch);
  const std::int64_t chunks = (N + kChunkRows - 1) / kChunkRows;
  auto* partials = ctx.scratch->allocate<float>(chunks * D);
  parallel_for(ctx, chunks, [&](std::int64_t chunk, int) {
    float* partial = partials + chunk * D;
    std::fill(partial, partial + D, 0.0F);
    const std::int64_t end = std::min(N, (chunk + 1) * kChunkRows);
    for (std::int64_t n = chunk * kChunkRows; n < end; ++n) {
      const std::int64_t at = n * D;
      backward_row({.dh = dh + at,
                    .dw = partial,
                    .dy = dy + at,
                    .dresidual = dresidual != nullptr ? dresidual + at : nullptr,
                    .h = h + at,
                    .w = w,
                    .rstd = rstd[n]},
                   D);
    }
  });
  constexpr std::int64_t kColumns = 128;
  parallel_for(ctx, (D + kColumns - 1) / kColumns, [&](std::int64_t block, int) {
    const std::int64_t begin = block * kColumns;
    add_partials(dw, partials, chunks, D, begin, std::min(D, begin + kColumns));
  });
}

}  // namespace grist::cpu
