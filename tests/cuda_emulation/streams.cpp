#include "streams.h"

#include <cuda_runtime.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "capture.h"
#include "device_memory.h"
#include "emulation/control.h"
#include "random.h"
#include "state.h"

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kPatience{20};

struct EventState {
  std::uint64_t recorded = 0;  // calls of cudaEventRecord
  std::uint64_t done = 0;      // of those whose moment has come
  Clock::time_point time;
};

}  // namespace

struct CUevent_st {
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
};

struct CUstream_st {
  struct Piece {
    grist::emu::Work work;                // null: only waits
    std::shared_ptr<EventState> awaited;  // null: may start
    std::uint64_t version = 0;
    std::function<bool()> may_start = nullptr;  // null: yes
    bool ready() const {
      return (awaited == nullptr || awaited->done >= version) && (!may_start || may_start());
    }
  };
  bool blocking = true;  // with regard to the default stream
  int device = 0;
  bool running = false;
  bool destroyed = false;  // goes when its work is done
  std::deque<Piece> queue;
};

namespace grist::emu {

namespace {

struct Queues {
  std::mutex mutex;
  std::vector<CUstream_st*> streams;
  Random random;
  bool deferred = false;
  cudaError_t error = cudaSuccess;  // of work that nobody has been told about
};
Queues& queues() {
  static Queues* q = [] {
    const Options o = options();  // the environment's, until somebody sets others
    auto* made = new Queues;
    made->deferred = o.streams == Streams::deferred;
    made->random = Random(o.seed);
    return made;
  }();
  return *q;
}

void release_when_done(CUstream_st* s) {
  if (!s->destroyed || !s->queue.empty()) return;
  std::erase(queues().streams, s);
  delete s;
}

cudaError_t perform(const Work& work) {
  if (!work) return cudaSuccess;
  const DeviceAccess access;
  return work();
}

// Does one piece of a random stream; false: none may start now.
bool step(std::unique_lock<std::mutex>& lock) {
  Queues& q = queues();
  std::vector<CUstream_st*> ready;
  for (CUstream_st* s : q.streams) {
    if (!s->running && !s->queue.empty() && s->queue.front().ready()) ready.push_back(s);
  }
  if (ready.empty()) return false;
  CUstream_st* s = ready[q.random.below(static_cast<std::uint32_t>(ready.size()))];
  s->running = true;
  const Work work = s->queue.front().work;
  lock.unlock();
  const cudaError_t result = perform(work);
  lock.lock();
  s->queue.pop_front();
  s->running = false;
  release_when_done(s);
  if (q.error == cudaSuccess) q.error = result;
  return true;
}

// Until done(); another host thread may have to act first, so it waits a while.
template <class Done> cudaError_t drain_until(std::unique_lock<std::mutex>& lock, Done&& done) {
  Queues& q = queues();
  const auto begin = Clock::now();
  while (!done()) {
    if (step(lock)) continue;
    if (Clock::now() - begin > kPatience)
      return report(cudaErrorUnknown, "streams wait for events that nobody records");
    lock.unlock();
    sched_yield();
    lock.lock();
  }
  return std::exchange(q.error, cudaSuccess);
}

template <class Which> cudaError_t drain_streams(Which&& which) {
  Queues& q = queues();
  std::unique_lock lock(q.mutex);
  return drain_until(lock, [&] {
    return std::none_of(q.streams.begin(), q.streams.end(),
                        [&](CUstream_st* s) { return which(s) && !s->queue.empty(); });
  });
}

cudaError_t put(cudaStream_t stream, CUstream_st::Piece piece) {
  Queues& q = queues();
  if (piece.may_start) {  // NCCL could be captured; here it cannot
    if (const cudaError_t bad = refuse_on_captured(stream, "a message")) return bad;
  }
  if (const auto status = record_in_capture(stream, piece.work)) return *status;
  {
    const std::lock_guard lock(q.mutex);
    if (q.deferred && !is_default(stream)) {
      stream->queue.push_back(std::move(piece));
      return std::exchange(q.error, cudaSuccess);
    }
  }
  if (is_default(stream)) {
    if (const cudaError_t bad = refuse_on_default()) return bad;
    const cudaError_t before = drain_streams([](CUstream_st* s) { return s->blocking; });
    if (before != cudaSuccess) return before;
  }
  if (piece.may_start) {  // another host thread has to act first
    const auto begin = Clock::now();
    while (!piece.may_start()) {
      if (Clock::now() - begin > kPatience)
        return report(cudaErrorUnknown, "a stream waits for what nobody does");
      sched_yield();
    }
  }
  return perform(piece.work);
}

}  // namespace

bool is_default(cudaStream_t s) {
  return s == nullptr || s == cudaStreamLegacy || s == cudaStreamPerThread;
}

bool is_blocking(cudaStream_t s) {
  return s->blocking;
}

cudaError_t enqueue(cudaStream_t stream, Work work) {
  return put(stream, {std::move(work), nullptr, 0});
}

cudaError_t enqueue_when(cudaStream_t stream, std::function<bool()> may_start, Work work) {
  return put(stream, {std::move(work), nullptr, 0, std::move(may_start)});
}

bool deferred() {
  const std::lock_guard lock(queues().mutex);
  return queues().deferred;
}

// As one GPU does: the others' work may wait for what this host thread does next.
cudaError_t drain_device() {
  return drain_streams([device = current_device()](CUstream_st* s) { return s->device == device; });
}

cudaError_t drain_all() {
  return drain_streams([](CUstream_st*) { return true; });
}

void set_deferred(bool on, std::uint64_t seed) {
  drain_all();
  Queues& q = queues();
  const std::lock_guard lock(q.mutex);
  q.deferred = on;
  q.random = Random(seed);
  q.error = cudaSuccess;
}

}  // namespace grist::emu

using grist::emu::queues;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  auto* s = new CUstream_st;
  s->blocking = (flags & cudaStreamNonBlocking) == 0;
  s->device = grist::emu::current_device();
  const std::lock_guard lock(queues().mutex);
  queues().streams.push_back(s);
  *out = s;
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* out) {
  return cudaStreamCreateWithFlags(out, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int) {
  return cudaStreamCreateWithFlags(out, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (const cudaError_t bad = grist::emu::refuse_on_captured(stream, "cudaStreamSynchronize"))
    return bad;
  if (grist::emu::is_default(stream))
    return grist::emu::drain_streams([](CUstream_st* s) { return s->blocking; });
  return grist::emu::drain_streams([stream](CUstream_st* s) { return s == stream; });
}
// Does not wait: what is on the stream is done some time.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  grist::emu::forget_in_capture(stream);
  const std::lock_guard lock(queues().mutex);
  stream->destroyed = true;
  grist::emu::release_when_done(stream);
  return std::exchange(queues().error, cudaSuccess);
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (const cudaError_t bad = grist::emu::refuse_on_captured(stream, "cudaStreamQuery")) return bad;
  std::unique_lock lock(queues().mutex);
  grist::emu::step(lock);
  const bool done = grist::emu::is_default(stream) || stream->queue.empty();
  return done ? std::exchange(queues().error, cudaSuccess) : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t bad = grist::emu::refuse_while_capturing("cudaDeviceSynchronize"))
    return bad;
  return grist::emu::drain_device();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) {
  return cudaEventCreateWithFlags(out, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  grist::emu::forget_in_capture(event);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (const auto status = grist::emu::record_event_in_capture(stream, event)) return *status;
  std::shared_ptr<EventState> state = event->state;
  std::uint64_t version = 0;
  {
    const std::lock_guard lock(queues().mutex);
    version = ++state->recorded;
  }
  return grist::emu::enqueue(stream, [state, version] {
    const std::lock_guard lock(queues().mutex);
    state->done = version;
    state->time = Clock::now();
    return cudaSuccess;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  std::uint64_t version = 0;
  {
    const std::lock_guard lock(queues().mutex);
    version = event->state->recorded;  // 0: no wait
  }
  if (const auto status = grist::emu::wait_event_in_capture(stream, event, version > 0))
    return *status;
  return grist::emu::put(stream, {nullptr, event->state, version});
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const cudaError_t bad = grist::emu::refuse_captured(event, "cudaEventSynchronize"))
    return bad;
  std::unique_lock lock(queues().mutex);
  const std::shared_ptr<EventState> state = event->state;
  const std::uint64_t version = state->recorded;
  return grist::emu::drain_until(lock, [&] { return state->done >= version; });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const cudaError_t bad = grist::emu::refuse_captured(event, "cudaEventQuery")) return bad;
  std::unique_lock lock(queues().mutex);
  grist::emu::step(lock);
  return event->state->done >= event->state->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  const std::lock_guard lock(queues().mutex);
  *ms = std::chrono::duration<float, std::milli>(end->state->time - begin->state->time).count();
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f, void* data) {
  return grist::emu::enqueue(stream, [f, data] {
    f(data);
    return cudaSuccess;
  });
}

}  // extern "C"
