#pragma once
// The numbers of an AdamW update that do not depend on the element. Both backends take them from
// here: their updates have the same bits.
#include <cmath>

#include "grist/ops/optimizer.h"

namespace grist {

struct AdamStep {
  float lr, beta1, beta2, rest1, rest2, correction1, correction2, eps, decay;
};

inline AdamStep adam_step(const ops::AdamW& a) {
  const auto beta1 = static_cast<double>(a.beta1), beta2 = static_cast<double>(a.beta2);
  const auto step = static_cast<double>(a.step);
  return {.lr = a.lr,
          .beta1 = a.beta1,
          .beta2 = a.beta2,
          .rest1 = static_cast<float>(1.0 - beta1),
          .rest2 = static_cast<float>(1.0 - beta2),
          .correction1 = static_cast<float>(1.0 / (1.0 - std::pow(beta1, step))),
          .correction2 = static_cast<float>(1.0 / (1.0 - std::pow(beta2, step))),
          .eps = a.eps,
          .decay = a.weight_decay};
}

}  // namespace grist
