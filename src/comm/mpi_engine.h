#pragma once
// The one place that calls MPI while messages move.
//
// MPI runs with MPI_THREAD_SERIALIZED: every call is made under one mutex. Whoever waits makes the
// progress itself, which spares a handover between threads. While nobody waits, a progress thread
// does it, so that what has been started moves on while the caller computes. Both back off: a few
// turns that yield the core, then sleeps of 20 us growing to 200 us, and to a hundredth of what has
// been waited so far, at most 2 ms: ranks that wait leave the cores to ranks that compute.
//
// After the first error of MPI, or when a stack unwinds past an operation that does not end, the
// engine is broken: it makes no further calls, so no buffer is written any more, and every wait
// throws the reason.
#include <mpi.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "grist/core/error.h"

namespace grist::comm {

// Held around every call of MPI; the library is one a process.
std::mutex& mpi_mutex();

// MPI's text for an error.
std::string mpi_text(int status);

class MpiEngine {
 public:
  // Requests of one exchange that are not complete. Must outlive them, unless the engine is broken.
  struct Operation {
    std::atomic<int> open{0};
  };
  // A message, or a piece of one. Ranks are MPI_COMM_WORLD's.
  struct Message {
    int peer = 0;
    int tag = 0;
    std::size_t bytes = 0;
    std::byte* receive = nullptr;  // one of the two
    const std::byte* send = nullptr;
  };

  MpiEngine();   // MPI is initialised; starts the progress thread
  ~MpiEngine();  // ends it; finalises MPI unless broken or unwinding
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  void start(Operation& operation, std::span<const Message> messages);
  // Throws the engine's error. While an exception unwinds, waits for a second and then gives up.
  void wait(Operation& operation);

 private:
  struct Posted {
    Operation* operation;
    Message message;
  };

  void stop_waiting();
  void run();       // the progress thread
  bool progress();  // under the mutex; whether something completed
  void complete(const Posted& posted, const MPI_Status& status);
  void break_with(ExitCode code, const std::string& reason);
  void throw_if_broken();

  // All guarded by mpi_mutex(), but for the atomics.
  std::vector<MPI_Request> requests_;
  std::vector<Posted> posted_;  // one a request
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;
  std::optional<Error> error_;
  std::atomic<bool> broken_{false};
  std::atomic<int> waiting_{0};  // threads that make progress in wait()
  bool asleep_ = false;          // the progress thread, until it is notified
  bool stop_ = false;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace grist::comm
