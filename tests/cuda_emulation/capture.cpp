#include "capture.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "graph.h"
#include "state.h"

namespace {

using grist::emu::Nodes;
using grist::emu::Places;

struct Capture {
  cudaStream_t origin = nullptr;
  std::thread::id thread;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool valid = true;
  Nodes nodes;
  std::map<cudaStream_t, Places> last;  // what the next work of each stream comes after
};

// An event that stands for nodes of a capture, which may be over.
struct Mark {
  std::weak_ptr<Capture> capture;
  Places places;
};

struct Captures {
  std::mutex mutex;
  std::map<cudaStream_t, std::shared_ptr<Capture>> streams;
  std::map<cudaEvent_t, Mark> events;
  std::atomic<std::size_t> count{0};  // of both: most calls find nothing and take no lock
  void recount() { count = streams.size() + events.size(); }
  Capture* of(cudaStream_t stream) const {
    const auto found = streams.find(stream);
    return found == streams.end() ? nullptr : found->second.get();
  }
};
Captures& captures() {
  static Captures* c = new Captures;
  return *c;
}

cudaError_t spoil(Capture& capture, cudaError_t code, const std::string& what) {
  capture.valid = false;
  return grist::emu::report(code, what);
}

cudaError_t invalidated() {
  return grist::emu::report(cudaErrorStreamCaptureInvalidated,
                            "the capture of this stream was invalidated by an earlier call");
}

void add(Places& to, const Places& more) {
  for (const std::size_t place : more)
    if (std::find(to.begin(), to.end(), place) == to.end()) to.push_back(place);
}

// Whether all nodes come before or are among the origin's last ones.
bool joined(const Capture& c) {
  std::vector<bool> reached(c.nodes.size(), false);
  Places open = c.last.at(c.origin);
  while (!open.empty()) {
    const std::size_t place = open.back();
    open.pop_back();
    if (reached[place]) continue;
    reached[place] = true;
    open.insert(open.end(), c.nodes[place].after.begin(), c.nodes[place].after.end());
  }
  return std::all_of(reached.begin(), reached.end(), [](bool r) { return r; });
}

}  // namespace

namespace grist::emu {

std::optional<cudaError_t> record_in_capture(cudaStream_t stream, const Work& work) {
  Captures& all = captures();
  if (all.count == 0) return {};
  const std::lock_guard lock(all.mutex);
  Capture* c = all.of(stream);
  if (c == nullptr) return {};
  if (!c->valid) return invalidated();
  Places& last = c->last[stream];
  c->nodes.push_back({work, last});
  last = {c->nodes.size() - 1};
  return cudaSuccess;
}

std::optional<cudaError_t> record_event_in_capture(cudaStream_t stream, cudaEvent_t event) {
  Captures& all = captures();
  if (all.count == 0) return {};
  const std::lock_guard lock(all.mutex);
  Capture* c = all.of(stream);
  if (c == nullptr) {
    all.events.erase(event);
    all.recount();
    return {};
  }
  if (!c->valid) return invalidated();
  all.events[event] = {all.streams[stream], c->last[stream]};
  all.recount();
  return cudaSuccess;
}

std::optional<cudaError_t> wait_event_in_capture(cudaStream_t stream, cudaEvent_t event,
                                                 bool recorded) {
  Captures& all = captures();
  if (all.count == 0) return {};
  const std::lock_guard lock(all.mutex);
  Capture* c = all.of(stream);
  if (c != nullptr && !c->valid) return invalidated();
  const auto found = all.events.find(event);
  if (found == all.events.end()) {
    if (c == nullptr) return {};
    if (!recorded) return cudaSuccess;
    return spoil(*c, cudaErrorStreamCaptureIsolation,
                 "a captured stream waits for an event from outside of the capture");
  }
  const std::shared_ptr<Capture> its = found->second.capture.lock();
  if (its == nullptr)
    return report(cudaErrorCapturedEvent, "a stream waits for an event of a capture that is over");
  if (c != nullptr && c != its.get()) {
    its->valid = false;
    return spoil(*c, cudaErrorStreamCaptureMerge, "an event would join two captures");
  }
  all.streams[stream] = its;
  add(its->last[stream], found->second.places);
  all.recount();
  return cudaSuccess;
}

void forget_in_capture(cudaEvent_t event) {
  Captures& all = captures();
  if (all.count == 0) return;
  const std::lock_guard lock(all.mutex);
  all.events.erase(event);
  all.recount();
}

void forget_in_capture(cudaStream_t stream) {
  Captures& all = captures();
  if (all.count == 0) return;
  const std::lock_guard lock(all.mutex);
  if (Capture* c = all.of(stream); c != nullptr) c->valid = false;
  all.streams.erase(stream);
  all.recount();
}

cudaError_t refuse_on_captured(cudaStream_t stream, const std::string& call) {
  Captures& all = captures();
  if (all.count == 0) return cudaSuccess;
  const std::lock_guard lock(all.mutex);
  Capture* c = all.of(stream);
  if (c == nullptr) return cudaSuccess;
  return spoil(*c, cudaErrorStreamCaptureUnsupported, call + " on a stream under capture");
}

cudaError_t refuse_captured(cudaEvent_t event, const std::string& call) {
  Captures& all = captures();
  if (all.count == 0) return cudaSuccess;
  const std::lock_guard lock(all.mutex);
  const auto found = all.events.find(event);
  if (found == all.events.end()) return cudaSuccess;
  if (const auto c = found->second.capture.lock()) c->valid = false;
  return report(cudaErrorCapturedEvent, call + " of an event that was recorded in a capture");
}

namespace {

// Spoils the captures that `forbid` this call.
template <class Forbid>
cudaError_t refuse(cudaError_t code, const std::string& what, const Forbid& forbid) {
  Captures& all = captures();
  if (all.count == 0) return cudaSuccess;
  const std::lock_guard lock(all.mutex);
  cudaError_t status = cudaSuccess;
  for (const auto& [stream, c] : all.streams)
    if (forbid(stream, *c)) status = spoil(*c, code, what);
  return status;
}

}  // namespace

cudaError_t refuse_unsafe(const std::string& call) {
  const auto forbids = [](cudaStream_t, const Capture& c) {
    return c.mode == cudaStreamCaptureModeGlobal ||
           (c.mode == cudaStreamCaptureModeThreadLocal && c.thread == std::this_thread::get_id());
  };
  return refuse(cudaErrorStreamCaptureUnsupported, call + " during a capture", forbids);
}

cudaError_t refuse_while_capturing(const std::string& call) {
  return refuse(cudaErrorStreamCaptureUnsupported, call + " during a capture",
                [](cudaStream_t, const Capture&) { return true; });
}

cudaError_t refuse_on_default() {
  return refuse(cudaErrorStreamCaptureImplicit,
                "the default stream would wait for a stream under capture",
                [](cudaStream_t stream, const Capture&) { return is_blocking(stream); });
}

}  // namespace grist::emu

using grist::emu::report;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (grist::emu::is_default(stream))
    return report(cudaErrorStreamCaptureUnsupported, "capture of the default stream");
  Captures& all = captures();
  const std::lock_guard lock(all.mutex);
  if (all.of(stream) != nullptr)
    return report(cudaErrorIllegalState, "the stream is under capture already");
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->thread = std::this_thread::get_id();
  capture->mode = mode;
  capture->last[stream] = {};
  all.streams[stream] = std::move(capture);
  all.recount();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  Captures& all = captures();
  const std::lock_guard lock(all.mutex);
  const auto found = all.streams.find(stream);
  if (found == all.streams.end())
    return report(cudaErrorIllegalState, "the stream is not under capture");
  const std::shared_ptr<Capture> c = found->second;
  if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id())
    return report(cudaErrorStreamCaptureWrongThread, "another thread began the capture");
  if (c->origin != stream)
    return spoil(*c, cudaErrorStreamCaptureUnmatched, "the capture began on another stream");
  std::erase_if(all.streams, [&](const auto& entry) { return entry.second == c; });
  all.recount();
  if (!c->valid) return invalidated();
  if (!joined(*c))
    return report(cudaErrorStreamCaptureUnjoined,
                  "work of another stream in the capture is awaited by nobody");
  *graph = new CUgraph_st{std::make_shared<Nodes>(std::move(c->nodes))};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Captures& all = captures();
  const std::lock_guard lock(all.mutex);
  const Capture* c = all.of(stream);
  *status = c == nullptr ? cudaStreamCaptureStatusNone
            : c->valid   ? cudaStreamCaptureStatusActive
                         : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

}  // extern "C"
