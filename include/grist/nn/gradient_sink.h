#pragma once
// Who wants to know that gradients are final: data parallelism reduces them while the backward pass
// goes on.
#include <cstddef>

namespace grist::nn {

class GradientSink {
 public:
  virtual ~GradientSink() = default;
  // This micro-batch will not touch the gradients of Parameters::groups()[group] any more. Called
  // once a group, in order.
  virtual void ready(std::size_t group) = 0;
};

}  // namespace grist::nn
