#include "compare.h"
#include "device_context.h"

namespace grist::test {

Device test_device() {
  return Device::cpu;
}

struct DeviceContext::State {
  CpuContext context;
};
DeviceContext::DeviceContext() : state_(std::make_unique<State>()) {}
DeviceContext::~DeviceContext() = default;
const Context& DeviceContext::operator*() const {
  return *state_->context;
}

}  // namespace grist::test
