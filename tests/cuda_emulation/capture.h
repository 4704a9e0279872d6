#pragma once
// What is put on a stream while it is captured: nothing runs, work becomes nodes of a graph. Calls
// that cannot be recorded fail as the CUDA runtime says and make the capture invalid.
#include <driver_types.h>

#include <optional>
#include <string>

#include "streams.h"

namespace grist::emu {

// Work for a stream under capture; empty: it is under none.
std::optional<cudaError_t> record_in_capture(cudaStream_t stream, const Work& work);
// The same for events; an event that is recorded on another stream is a captured one no longer.
std::optional<cudaError_t> record_event_in_capture(cudaStream_t stream, cudaEvent_t event);
// `recorded`: whether anybody recorded it outside of captures.
std::optional<cudaError_t> wait_event_in_capture(cudaStream_t stream, cudaEvent_t event,
                                                 bool recorded);
void forget_in_capture(cudaEvent_t event);
void forget_in_capture(cudaStream_t stream);

// An error, told and fatal to the capture, when ...
cudaError_t refuse_on_captured(cudaStream_t stream, const std::string& call);  // it is captured
cudaError_t refuse_captured(cudaEvent_t event, const std::string& call);       // the event is
// ... this thread (with cudaStreamCaptureModeGlobal: any) captures and the mode is not relaxed.
cudaError_t refuse_unsafe(const std::string& call);
// ... anybody captures.
cudaError_t refuse_while_capturing(const std::string& call);
// ... work on the default stream would wait for a captured one.
cudaError_t refuse_on_default();

}  // namespace grist::emu
