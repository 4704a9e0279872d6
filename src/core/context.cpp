#include "grist/core/context.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/host.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace grist {

void flush_denormals() {
#if defined(__SSE2__)
  _mm_setcsr(_mm_getcsr() | 0x8040U);  // FTZ | DAZ
#elif defined(__aarch64__)
  std::uint64_t fpcr = 0;
  asm volatile("mrs %0, fpcr" : "=r"(fpcr));
  fpcr |= std::uint64_t{1} << 24;
  asm volatile("msr fpcr, %0" ::"r"(fpcr));
#endif
}

Context::Context(Device where, CUstream_st* work, Scratch* temporaries)
    : device(where), stream(work), scratch(temporaries) {
  GRIST_CHECK(work != nullptr || !properties(where).asynchronous,
              "work on device {} needs a stream of its own", name_of(where));
}

namespace {
thread_local bool inside_task = false;
}  // namespace

struct ThreadPool::State {
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake, done;
  const std::function<void(std::int64_t, int)>* task = nullptr;
  std::int64_t count = 0;
  std::atomic<std::int64_t> next{0};
  std::atomic<std::uint64_t> round{0};
  std::atomic<int> busy{0};
  bool stop = false;
  std::exception_ptr error;

  void work(int worker) {
    inside_task = true;
    try {
      for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) (*task)(i, worker);
    } catch (...) {
      next.store(count);
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
    inside_task = false;
  }

  // Waits a little while awake (a step has hundreds of short parallel regions), then sleeps.
  void serve(int worker) {
    flush_denormals();
    std::uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < 4000 && round.load(std::memory_order_acquire) == seen; ++spin) {
#if defined(__SSE2__)
        _mm_pause();
#endif
      }
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stop || round.load(std::memory_order_acquire) != seen; });
        if (stop) return;
        seen = round.load(std::memory_order_acquire);
      }
      work(worker);
      if (busy.fetch_sub(1) == 1) {
        const std::lock_guard lock(mutex);
        done.notify_one();
      }
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  const int n = num_threads > 0 ? num_threads : available_cores();
  for (int i = 1; i < n; ++i) state_->threads.emplace_back([s = state_.get(), i] { s->serve(i); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->round.fetch_add(1);
  state_->wake.notify_all();
  for (std::thread& t : state_->threads) t.join();
}

int ThreadPool::size() const {
  return static_cast<int>(state_->threads.size()) + 1;
}

void ThreadPool::run(std::int64_t count, const std::function<void(std::int64_t, int)>& task) {
  State& s = *state_;
  if (inside_task || s.threads.empty() || count <= 1) {
    for (std::int64_t i = 0; i < count; ++i) task(i, 0);
    return;
  }
  {
    const std::lock_guard lock(s.mutex);
    s.task = &task;
    s.count = count;
    s.error = nullptr;
    s.next.store(0);
    s.busy.store(static_cast<int>(s.threads.size()));
    s.round.fetch_add(1, std::memory_order_release);
  }
  s.wake.notify_all();
  s.work(0);
  for (int spin = 0; spin < 20000 && s.busy.load(std::memory_order_acquire) != 0; ++spin) {
#if defined(__SSE2__)
    _mm_pause();
#endif
  }
  std::unique_lock lock(s.mutex);
  s.done.wait(lock, [&] { return s.busy.load(std::memory_order_acquire) == 0; });
  if (s.error) std::rethrow_exception(s.error);
}

namespace {

void run_tasks(const Context& ctx, std::int64_t count,
               const std::function<void(std::int64_t, int)>& task) {
  if (ctx.pool != nullptr) {
    ctx.pool->run(count, task);
  } else {
    for (std::int64_t i = 0; i < count; ++i) task(i, 0);
  }
}

}  // namespace

void parallel_for(const Context& ctx, std::int64_t count,
                  const std::function<void(std::int64_t, int)>& task) {
  if (ctx.beats == nullptr) {
    run_tasks(ctx, count, task);
    return;
  }
  run_tasks(ctx, count, [&](std::int64_t i, int worker) {
    task(i, worker);
    if (worker == 0) ctx.beats->fetch_add(1, std::memory_order_relaxed);  // one thread is enough
  });
}

}  // namespace grist
