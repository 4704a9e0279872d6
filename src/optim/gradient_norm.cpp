#include "grist/optim/gradient_norm.h"

#include <algorithm>
#include <cmath>

#include "grist/core/device.h"
#include "grist/core/uploads.h"
#include "grist/ops/optimizer.h"

namespace grist {

GradientNorm::GradientNorm(const std::vector<ConstTensorView>& gradients) {
  for (const ConstTensorView& g : gradients) {
    const std::int64_t n = g.numel();
    const ConstTensorView flat = reshape(g, {n});
    for (std::int64_t begin = 0; begin < n; begin += ops::kNormChunk) {
      const std::int64_t size = std::min(ops::kNormChunk, n - begin);
      chunks_.push_back(reinterpret_cast<std::int64_t>(rows(flat, begin, begin + size).data));
      chunks_.push_back(size);
    }
  }
}

// All pieces at once: most tensors of a fine-grained model are smaller than a chunk.
void GradientNorm::partials(const Context& ctx, const TensorView& out) const {
  const Shape table = {num_partials(), 2};
  const Readable chunks(ctx, {chunks_.data(), DType::i64, table});
  ops::squared_sums(ctx, {.partials = out, .chunks = chunks.view()});
}

double norm_of(const Context& ctx, const ConstTensorView& partials) {
  const std::vector<double> host = to_host<double>(ctx, partials);
  double total = 0;
  ops::tree_sum({}, {.sum = {&total, DType::f64, {1}},
                     .partials = {host.data(), DType::f64, partials.shape}});
  return std::sqrt(total);
}

}  // namespace grist
