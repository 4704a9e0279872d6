#pragma once
// A device whose work is done when a call returns: it has no streams, marks or graphs, and nothing
// to wait for. Its maker says where memory comes from and how bytes get there.
#include "grist/core/device.h"

namespace grist {

class SynchronousDevice : public DeviceRuntime {
 public:
  CUstream_st* make_stream() override { return nullptr; }
  void destroy_stream(CUstream_st* /*s*/) noexcept override {}
  void wait(CUstream_st* /*s*/) override {}
  void order(CUstream_st* /*earlier*/, CUstream_st* /*later*/) override {}
  CUevent_st* mark(CUstream_st* /*s*/) override { return nullptr; }
  void order(CUevent_st* /*earlier*/, CUstream_st* /*later*/) override {}
  void wait(CUevent_st* /*m*/) override {}
  void destroy_mark(CUevent_st* /*m*/) noexcept override {}

  // Error{internal}: properties().graphs is false.
  void begin_capture(CUstream_st* s) override;
  CUgraphExec_st* end_capture(CUstream_st* s) override;
  void launch(CUgraphExec_st* graph, CUstream_st* s) override;
  void abandon_capture(CUstream_st* /*s*/) noexcept override {}
  void destroy_graph(CUgraphExec_st* /*graph*/) noexcept override {}
};

}  // namespace grist
