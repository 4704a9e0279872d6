#pragma once
// For tests that run on whatever device their program is about: the CPU (device_context_cpu.cpp),
// or CUDA in the programs of tests/cuda.
#include "grist/core/device.h"

namespace grist::test {

Device test_device();

// A context on it, with its own scratch memory, threads or stream.
class DeviceContext {
 public:
  DeviceContext();
  ~DeviceContext();
  const Context& operator*() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace grist::test
