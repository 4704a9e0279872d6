#include "grist/data/batch_loader.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "grist/core/check.h"

namespace grist {

// The thread owns `ahead` and `error` while `wanted` is not empty, the caller at all other times.
struct BatchLoader::State {
  Read read;
  std::vector<Batch> current, ahead;
  SampleRange ahead_range;   // what `ahead` holds; empty: nothing to give
  std::exception_ptr error;  // of reading it
  SampleRange wanted;        // empty: nothing to do
  bool stop = false;
  std::mutex mutex;
  std::condition_variable changed;
  std::thread thread;

  void serve() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return stop || wanted.count > 0; });
      if (stop) return;
      const SampleRange range = wanted;
      lock.unlock();
      std::exception_ptr caught;
      try {
        read(range, ahead);
      } catch (...) {
        caught = std::current_exception();
      }
      lock.lock();
      error = caught;
      ahead_range = range;
      wanted = {};
      changed.notify_all();
    }
  }

  void ask(const SampleRange& range) {
    const std::lock_guard lock(mutex);
    wanted = range;
    changed.notify_all();
  }

  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return wanted.count == 0; });
  }
};

BatchLoader::BatchLoader(Read read) : state_(std::make_unique<State>()) {
  state_->read = std::move(read);
  state_->thread = std::thread([s = state_.get()] { s->serve(); });
}

BatchLoader::BatchLoader(const SampleStream& stream, std::int64_t micro_batch_size)
    : BatchLoader(
          [&stream, micro_batch_size](const SampleRange& range, std::vector<Batch>& batches) {
            GRIST_CHECK(range.count % micro_batch_size == 0, "{} samples in batches of {}",
                        range.count, micro_batch_size);
            batches.resize(static_cast<std::size_t>(range.count / micro_batch_size));
            std::int64_t first = range.first;
            for (Batch& batch : batches) {
              stream.batch(first, micro_batch_size, batch);
              first += micro_batch_size;
            }
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

const std::vector<Batch>& BatchLoader::get(const SampleRange& now, const SampleRange& next) {
  GRIST_CHECK(now.count > 0, "a range of {} samples", now.count);
  State& s = *state_;
  s.wait();
  if (s.ahead_range != now) {
    s.ask(now);
    s.wait();
  }
  s.ahead_range = {};
  if (s.error) std::rethrow_exception(std::exchange(s.error, nullptr));
  std::swap(s.current, s.ahead);
  if (next.count > 0) s.ask(next);
  return s.current;
}

}  // namespace grist
