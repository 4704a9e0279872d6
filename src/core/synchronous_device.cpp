#include "grist/core/synchronous_device.h"

#include "grist/core/check.h"

namespace grist {

namespace {

[[noreturn]] void cannot_record(const DeviceRuntime& device) {
  fail(ExitCode::internal, "{} records no graphs", device.describe());
}

}  // namespace

void SynchronousDevice::begin_capture(CUstream_st* /*s*/) {
  cannot_record(*this);
}
CUgraphExec_st* SynchronousDevice::end_capture(CUstream_st* /*s*/) {
  cannot_record(*this);
}
void SynchronousDevice::launch(CUgraphExec_st* /*graph*/, CUstream_st* /*s*/) {
  cannot_record(*this);
}

}  // namespace grist
