#include "support/device_context.h"

#include "fixture.h"

namespace grist::test {

Device test_device() {
  return Device::cuda;
}

struct DeviceContext::State {
  CudaContext context;
};
DeviceContext::DeviceContext() : state_(std::make_unique<State>()) {}
DeviceContext::~DeviceContext() = default;
const Context& DeviceContext::operator*() const {
  return *state_->context;
}

}  // namespace grist::test
