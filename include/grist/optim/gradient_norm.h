#pragma once
// The gradient norm, in pieces: each piece gives one double sum of squares for each kNormChunk
// elements (ops/optimizer.h), and the norm is the root of the tree over the sums of all chunks of
// all tensors, in the order of the tensors' names. Who computes which chunk changes no bit, so
// ranks may share the work.
#include <cstdint>
#include <vector>

#include "grist/core/context.h"
#include "grist/core/tensor.h"

namespace grist {

class GradientNorm {
 public:
  // f32 of any shape: whole tensors, or pieces that begin at a chunk's edge and end at one or at
  // the tensor's end. What they point into must outlive this.
  explicit GradientNorm(const std::vector<ConstTensorView>& gradients);
  std::int64_t num_partials() const { return static_cast<std::int64_t>(chunks_.size() / 2); }
  // Needs ctx.scratch on a GPU. out: (num_partials) f64 on the context's device, in the order of
  // the pieces.
  void partials(const Context& ctx, const TensorView& out) const;

 private:
  std::vector<std::int64_t> chunks_;  // address and size of each (ops/optimizer.h)
};

// sqrt(tree over partials); partials: (n) f64 of all chunks in name order, on the context's device.
// Waits for it.
double norm_of(const Context& ctx, const ConstTensorView& partials);

}  // namespace grist
