#pragma once
// What an operation runs on: device, stream, scratch memory, CPU threads. Passed by reference,
// owned by the caller.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "grist/core/device_id.h"

struct CUstream_st;

namespace grist {

class Scratch;  // core/memory.h, which few who see a context need

// A fixed set of threads that claim tasks by number. Which thread runs a task never changes a
// result: a task's arithmetic depends on its number alone. One parallel_for at a time; a nested
// call runs in the calling thread.
class ThreadPool {
 public:
  explicit ThreadPool(
      int num_threads);  // the caller counts as one of them; 0: one per available core
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  int size() const;
  // Calls task(i, worker) for every i in [0, count), worker in [0, size()). Returns when all are
  // done; rethrows the first error.
  void run(std::int64_t count, const std::function<void(std::int64_t, int)>& task);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct Context {
  // On the CPU.
  Context() = default;
  explicit Context(ThreadPool* threads, Scratch* temporaries = nullptr)
      : pool(threads), scratch(temporaries) {}
  // On any device. An asynchronous one needs a stream that somebody made: CUDA's null stream, whose
  // order against others nobody states, is refused (Error{internal}).
  Context(Device where, CUstream_st* work, Scratch* temporaries = nullptr);
  Context(Device, std::nullptr_t, Scratch* = nullptr) = delete;

  const Device device = Device::cpu;
  CUstream_st* const stream = nullptr;  // of asynchronous devices
  ThreadPool* pool = nullptr;           // of the others; null: the calling thread does everything
  Scratch* scratch = nullptr;           // required by the operations that say so
  // Grows while parallel_for() works, for a watchdog; null: nobody looks.
  std::atomic<std::uint64_t>* beats = nullptr;
  int num_workers() const { return pool == nullptr ? 1 : pool->size(); }
};

// task(i, worker) for i in [0, count) on the context's pool.
void parallel_for(const Context& ctx, std::int64_t count,
                  const std::function<void(std::int64_t, int)>& task);

// Denormals are flushed to zero in this thread and in every ThreadPool made later. Call first thing
// in main: results depend on it.
void flush_denormals();

}  // namespace grist
