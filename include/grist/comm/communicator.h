#pragma once
// Ranks that talk to each other. One primitive moves bytes (exchange); every collective of
// comm/collectives.h is made of it, and every sum is made by us in a fixed order, so no result
// depends on timing or on a library's choice of algorithm. Transports: `local` (threads of one
// process, comm/local.h) and MPI (comm/launch.h).
//
// The n-th call of exchange() or split() on a communicator belongs to the n-th call on every other
// rank of it: all ranks call in the same order. Different communicators are independent of each
// other, and may be used by different threads; one communicator by one thread at a time.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace grist::comm {

// What a rank is doing, for the watchdog: written by the rank's threads, read by its monitor.
struct Activity {
  std::atomic<std::int64_t> step{-1};
  std::atomic<const char*> phase{"start"};   // a string literal: "forward", "save", ...
  std::atomic<std::uint64_t> beats{0};       // grows with every sign of life
  std::atomic<std::uint64_t> operations{0};  // exchanges begun
  std::atomic<std::uint64_t> waits{0};       // times a wait() began
  std::atomic<int> waiting{0};               // threads blocked in a wait() now
  std::atomic<std::int64_t> waited_ns{0};    // time spent in wait() of the main communicator
  void enter(const char* what) {
    phase.store(what, std::memory_order_relaxed);
    beat();
  }
  void beat() { beats.fetch_add(1, std::memory_order_relaxed); }
};

// A started operation. Buffers belong to it until wait() returns. Move-only; the destructor waits
// too, and swallows the error that wait() would have thrown.
class Pending {
 public:
  class Operation {
   public:
    virtual ~Operation() = default;
    virtual void wait() = 0;  // once; throws Error{peer_lost} when the job is being torn down
  };
  Pending() = default;  // nothing to wait for
  explicit Pending(std::unique_ptr<Operation> operation, Activity* activity = nullptr)
      : operation_(std::move(operation)), activity_(activity) {}
  Pending(Pending&& other) noexcept = default;
  Pending& operator=(Pending&& other) noexcept;
  ~Pending();
  void wait();

 private:
  std::unique_ptr<Operation> operation_;
  Activity* activity_ = nullptr;
};

// Empty messages need not be listed. A rank may send to itself: a copy. At most one message for
// each pair of ranks and direction in one exchange.
struct Send {
  int peer = 0;
  std::span<const std::byte> bytes;
};
struct Receive {
  int peer = 0;
  std::span<std::byte> bytes;  // exactly as many as the peer sends
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // Starts all messages and returns; they move while the caller computes where the transport can.
  // Empty spans are ignored on both sides. All ranks of the communicator call, also those with
  // nothing to send.
  virtual Pending exchange(std::span<const Send> sends, std::span<const Receive> receives) = 0;
  // A communicator of the ranks that give the same color, in the order of their ranks here. Its
  // waits and exchanges count in `activity`; null: in this one's, as those of the same thread must.
  // Blocks.
  virtual std::unique_ptr<Communicator> split(int color,
                                              std::shared_ptr<Activity> activity = nullptr) = 0;

  Activity& activity() const { return *activity_; }
  std::shared_ptr<Activity> shared_activity() const { return activity_; }

 protected:
  Communicator(int rank, int size, std::shared_ptr<Activity> activity)
      : rank_(rank), size_(size), activity_(std::move(activity)) {}

 private:
  int rank_;
  int size_;
  std::shared_ptr<Activity> activity_;
};

// One rank alone: a program that was started without mpirun, or a rank of `c` that works for itself
// (its signs of life count as those of `c`).
std::unique_ptr<Communicator> alone();
std::unique_ptr<Communicator> alone(const Communicator& c);

}  // namespace grist::comm
