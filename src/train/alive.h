#pragma once
// A rank that takes memory sends nothing and computes nothing, and is no hang.
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "grist/comm/communicator.h"

namespace grist::train {

// Signs of life while memory of a large model is taken and cleared, which can last longer than a
// watchdog waits.
class Alive {
 public:
  explicit Alive(comm::Activity& activity)
      : thread_([&activity](const std::stop_token& stop) {
          std::mutex mutex;
          std::condition_variable_any ended;
          std::unique_lock lock(mutex);
          do {
            activity.beat();
          } while (!ended.wait_for(lock, stop, std::chrono::milliseconds(100),
                                   [&] { return stop.stop_requested(); }));
        }) {}

 private:
  std::jthread thread_;
};

}  // namespace grist::train
