#include "grist/data/batch_loader.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

namespace grist {

namespace {
constexpr std::int64_t kNone = -1;
}

// The thread owns `ahead` and `error` while `wanted` is not kNone, the caller at all other times.
struct BatchLoader::State {
  Read read;
  Batch current, ahead;
  std::int64_t ahead_first = kNone;  // what `ahead` holds
  std::exception_ptr error;          // of reading it
  std::int64_t wanted = kNone;
  bool stop = false;
  std::mutex mutex;
  std::condition_variable changed;
  std::thread thread;

  void serve() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return stop || wanted != kNone; });
      if (stop) return;
      const std::int64_t first = wanted;
      lock.unlock();
      std::exception_ptr caught;
      try {
        read(first, ahead);
      } catch (...) {
        caught = std::current_exception();
      }
      lock.lock();
      error = caught;
      ahead_first = first;
      wanted = kNone;
      changed.notify_all();
    }
  }

  void ask(std::int64_t first) {
    const std::lock_guard lock(mutex);
    wanted = first;
    changed.notify_all();
  }

  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return wanted == kNone; });
  }
};

BatchLoader::BatchLoader(Read read) : state_(std::make_unique<State>()) {
  state_->read = std::move(read);
  state_->thread = std::thread([s = state_.get()] { s->serve(); });
}

BatchLoader::BatchLoader(const SampleStream& stream, std::int64_t count)
    : BatchLoader([&stream, count](std::int64_t first, Batch& batch) {
        stream.batch(first, count, batch);
      }) {}

BatchLoader::~BatchLoader() {
  state_->wait();
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->changed.notify_all();
  }
  state_->thread.join();
}

const Batch& BatchLoader::get(std::int64_t first, std::int64_t next) {
  State& s = *state_;
  s.wait();
  if (s.ahead_first != first) {
    s.ask(first);
    s.wait();
  }
  s.ahead_first = kNone;
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
  std::swap(s.current, s.ahead);
  if (next >= 0) s.ask(next);
  return s.current;
}

}  // namespace grist
