#pragma once
// AdamW (Loshchilov & Hutter 2019) as an update rule: first and second moment "m" and "v", every
// element by itself. The formula is in ops/optimizer.h.
#include "grist/optim/optimizer.h"

namespace grist {

class AdamW final : public UpdateRule {
 public:
  explicit AdamW(const OptimConfig& config) : config_(config) {}
  std::vector<std::string> states(const OptimizedTensor& tensor) const override;
  CutRule cut(const OptimizedTensor& tensor) const override;
  void apply(const Context& ctx, std::span<const UpdateItem> items,
             const UpdateStep& step) const override;

 private:
  OptimConfig config_;
};

}  // namespace grist
