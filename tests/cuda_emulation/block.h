#pragma once
// One OS thread's state: the block that it runs, the fibers, and who is ready.
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "async_copies.h"
#include "async_proxy.h"
#include "emulation/control.h"
#include "emulation/engine.h"
#include "fiber.h"
#include "random.h"
#include "shared_memory.h"

namespace grist::emu {

constexpr int kMaxThreads = 1024;
constexpr int kMaxWarps = kMaxThreads / kWarpLanes;
constexpr int kBarriers = 16;

// One launch, shared by the OS threads that run its blocks.
struct Grid {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  std::function<void()> body;
  Options options;
  std::uint64_t number = 0;  // of the launch, for the seeds
};

enum class State : std::uint8_t { ready, meeting, at_barrier, polling, done };

struct Thread {
  void* sp = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  Stack stack;
  uint3 index = {};
  int number = 0;
  State state = State::ready;
  const char* doing = "";  // while not ready
  Where where;
  BarrierSums sums;
  AsyncCopies copies;
  int warp() const { return number / kWarpLanes; }
  int lane() const { return number % kWarpLanes; }
};

// A collective of a warp that some lanes have come to.
struct Meeting {
  unsigned mask = 0;  // 0: none
  unsigned arrived = 0;
  Combine combine = nullptr;
  const char* name = "";
  Where where;
  std::array<void*, kWarpLanes> payloads;
};

struct Warp {
  unsigned live = 0;
  unsigned ready = 0;
  unsigned polling = 0;
  std::array<Meeting, 4> meetings;  // of disjoint masks
};

struct GroupMeeting {
  Combine combine = nullptr;
  const char* name = "";
  Where where;
  int arrived = 0;
  std::array<void*, kWarpgroupThreads> payloads;
};

struct Barrier {
  int threads = 0;  // of this phase: a number or kAllThreads
  int arrived = 0;  // threads, waiting or not
  BarrierSums sums;
  std::array<unsigned, kMaxWarps> present = {};  // lanes of each warp
  std::array<unsigned, kMaxWarps> waiting = {};
  std::array<Where, kMaxWarps> where = {};
};

class Block {
 public:
  Block();
  ~Block();
  // Runs block `index` of the grid. False: it failed, and report() says how.
  bool run(const Grid& grid, std::uint64_t linear_index);
  const std::string& report() const { return report_; }

  void warp_collective(const char* name, unsigned mask, Combine combine, void* payload,
                       Where where);
  void warpgroup_collective(const char* name, Combine combine, void* payload, Where where);
  BarrierSums barrier(int id, int threads, bool predicate, bool wait, Where where);
  void pause(Where where, bool for_others);
  // A waiting loop's condition may have changed: those that poll look again, in random orders even
  // while others have work.
  void progress();
  [[noreturn]] void fail(const std::string& what, Where where);
  [[noreturn]] void thread_main();
  Thread& current() { return *current_; }
  Thread& thread(int number) { return threads_[static_cast<std::size_t>(number)]; }
  bool running() const { return current_ != nullptr; }
  const Grid& grid() const { return *grid_; }
  SharedMemory& shared() { return shared_; }
  Random& random() { return random_; }
  AsyncProxy& proxy() { return proxy_; }
  std::string name_of(const Thread& t) const;
  const Stack* stack_guard_at(const void* p) const;

 private:
  void start(const Grid& grid, std::uint64_t linear_index);
  void check_end();
  Thread* pick();
  int pick_warp();
  int pick_lane(unsigned ready);
  bool wake_pollers();
  void make_pollers_ready();
  void block_current(State state, const char* doing, Where where);
  void make_ready(int warp, unsigned lanes);
  void leave(Thread* next, bool dying);
  void finish();
  void complete(Barrier& b);
  void check_barrier(const Barrier& b, int id, Where where);
  bool barrier_complete(const Barrier& b) const;
  void draw_warp_order();
  std::string deadlock() const;

  const Grid* grid_ = nullptr;
  std::vector<Thread> threads_;
  std::array<Warp, kMaxWarps> warps_;
  std::array<GroupMeeting, kMaxThreads / kWarpgroupThreads> groups_;
  std::array<Barrier, kBarriers> barriers_;
  unsigned ready_warps_ = 0;
  int count_ = 0;
  int live_ = 0;
  int warp_ = 0;  // that ran last
  int picks_ = 0;
  bool progress_ = false;
  bool polls_others_ = false;
  std::int64_t poll_start_ = 0;
  std::array<std::uint32_t, kMaxWarps> rank_ = {};  // of random orders: the least goes first
  Thread* current_ = nullptr;
  void* main_sp_ = nullptr;
  void* main_fake_stack_ = nullptr;
  const void* main_bottom_ = nullptr;
  std::size_t main_size_ = 0;
  SharedMemory shared_;
  AsyncProxy proxy_;
  Random random_;
  std::string report_;
};

// The block of this OS thread, made at the first use.
Block& this_block();
Block* find_this_block();

}  // namespace grist::emu
