#include "grist/optim/gradient_norm.h"

#include <algorithm>
#include <cmath>

#include "grist/core/device.h"
#include "grist/ops/optimizer.h"

namespace grist {

GradientNorm::GradientNorm(const std::vector<ConstTensorView>& gradients) {
  for (const ConstTensorView& g : gradients) {
    const std::int64_t n = g.numel();
    const ConstTensorView flat = reshape(g, {n});
    for (std::int64_t begin = 0; begin < n; begin += ops::kNormChunk)
      chunks_.push_back(rows(flat, begin, std::min(n, begin + ops::kNormChunk)));
  }
}

// Chunks of all pieces run side by side: most tensors of a fine-grained model are smaller than a
// chunk, so threads inside one tensor would have nothing to do.
void GradientNorm::partials(const Context& ctx, const TensorView& out) const {
  parallel_for(ctx, num_partials(), [&](std::int64_t i, int /*worker*/) {
    ops::squared_sums(ctx,
                      {.partials = rows(out, i, i + 1), .x = chunks_[static_cast<std::size_t>(i)]});
  });
}

double norm_of(const Context& ctx, const ConstTensorView& partials) {
  const std::vector<double> host = to_host<double>(ctx, partials);
  double total = 0;
  ops::tree_sum({}, {.sum = {&total, DType::f64, {1}},
                     .partials = {host.data(), DType::f64, partials.shape}});
  return std::sqrt(total);
}

}  // namespace grist
