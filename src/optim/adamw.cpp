#include "grist/optim/adamw.h"

#include "grist/ops/optimizer.h"

namespace grist {

std::vector<std::string> AdamW::states(const OptimizedTensor& /*tensor*/) const {
  return {"m", "v"};
}

CutRule AdamW::cut(const OptimizedTensor& /*tensor*/) const {
  return CutRule::chunks;
}

void AdamW::apply(const Context& ctx, std::span<const UpdateItem> items,
                  const UpdateStep& step) const {
  parallel_for(ctx, std::ssize(items), [&](std::int64_t i, int /*worker*/) {
    const UpdateItem& item = items[static_cast<std::size_t>(i)];
    const double decay = item.tensor->decay ? config_.weight_decay : 0.0;
    ops::adamw(ctx, {.param = item.param,
                     .m = item.state[0],
                     .v = item.state[1],
                     .grad = item.grad,
                     .control = step.control,
                     .lr = static_cast<float>(step.lr * item.lr_factor),
                     .beta1 = static_cast<float>(config_.adam_beta1),
                     .beta2 = static_cast<float>(config_.adam_beta2),
                     .eps = static_cast<float>(config_.adam_eps),
                     .weight_decay = static_cast<float>(decay),
                     .step = step.number});
  });
}

}  // namespace grist
