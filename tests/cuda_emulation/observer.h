#pragma once
// What the race checker (race/) hears of a block besides its loads and stores. Null in ordinary
// programs.
#include <cstddef>
#include <cstdint>

#include "emulation/engine.h"

namespace grist::emu {

// By which way memory is accessed: by wgmma and the TMA, or by all else.
enum class Proxy : std::uint8_t { generic, async };

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins() = 0;
  virtual void block_begins(int threads) = 0;
  // What `thread` has done so far is before what those do who acquire `object` from now on.
  virtual void release(int thread, const void* object) = 0;
  virtual void acquire(int thread, const void* object) = 0;
  virtual void forget(const void* object) = 0;
  // An asynchronous copy by `thread`: from begin to end nobody may touch the destination. At its
  // end it counts as a store of that thread at that moment, or still as one at its begin.
  // `proxy`: async for the TMA, generic for cp.async.
  virtual void copy_begins(int thread, const void* to, std::size_t bytes, Proxy proxy,
                           Where where) = 0;
  enum class StoreAt { begin, end };
  virtual void copy_ends(int thread, const void* to, std::size_t bytes, StoreAt at) = 0;
  // By the engine for the running thread (ldmatrix and the like).
  virtual void reads(const void* p, std::size_t bytes, Proxy proxy, Where where) = 0;
  virtual void writes(const void* p, std::size_t bytes, Proxy proxy, Where where) = 0;

  // fence.proxy.async: what the thread wrote in shared memory is there for the async proxy.
  virtual void proxy_fence(int thread) = 0;
  // The running thread lets the async proxy read this, from now until it takes it back.
  virtual void hands_over(const void* p, std::size_t bytes, Where where) = 0;
  virtual void takes_back(const void* p, std::size_t bytes) = 0;
  // A wgmma has read this; all threads of its warpgroup know of what it read when they have waited.
  virtual void product_reads(int warpgroup, const void* p, std::size_t bytes, Where where) = 0;
  virtual void products_waited(int warpgroup) = 0;

  // wgmma.fence, and the registers of a thread that a wgmma uses from begin to end.
  virtual void register_fence(int thread) = 0;
  virtual void registers_begin(int thread, const void* p, std::size_t bytes, Where where) = 0;
  virtual void registers_end(int thread, const void* p) = 0;

  // Threads [first, first + count) whose bit of `mask` (repeated) is set see each other's memory.
  void meet(int first, int count, unsigned mask) {
    const auto all = [&](auto&& f) {
      for (int i = 0; i < count; ++i) {
        if ((mask >> i % kWarpLanes & 1U) != 0) f(first + i);
      }
    };
    all([this](int t) { release(t, this); });
    all([this](int t) { acquire(t, this); });
    forget(this);
  }
};

extern Observer* observer;

}  // namespace grist::emu
