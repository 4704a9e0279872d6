// A grid over OS threads. The calling thread works too; helpers come when they are free.
#include "emulation/launch.h"

#include <sys/mman.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "block.h"
#include "device_memory.h"
#include "observer.h"
#include "state.h"
#include "streams.h"

namespace grist::emu {

namespace {

struct Job {
  Grid grid;
  std::uint64_t blocks = 0;
  std::atomic<std::uint64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::string report;

  void work() {
    Block& block = this_block();
    for (;;) {
      const std::uint64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= blocks || failed.load(std::memory_order_relaxed)) return;
      if (block.run(grid, i)) continue;
      const std::lock_guard lock(mutex);
      if (!failed.exchange(true)) report = block.report();
    }
  }
};

// OS threads beside the caller's; one job at a time has their help.
class Helpers {
 public:
  explicit Helpers(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { loop(); });
  }
  ~Helpers() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
  }
  void run(Job& job) {
    bool helped = false;
    if (!threads_.empty() && job.blocks > 1) {
      const std::lock_guard lock(mutex_);
      helped = job_ == nullptr;
      if (helped) {
        job_ = &job;
        ++generation_;
      }
    }
    if (helped) wake_.notify_all();
    job.work();
    if (!helped) return;
    std::unique_lock lock(mutex_);
    job_ = nullptr;
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    std::uint64_t seen = 0;
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || (job_ != nullptr && generation_ != seen); });
      if (stop_) return;
      seen = generation_;
      Job& job = *job_;
      ++busy_;
      lock.unlock();
      job.work();
      lock.lock();
      if (--busy_ == 0) done_.notify_all();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  std::uint64_t generation_ = 0;
  int busy_ = 0;
  bool stop_ = false;
};

Helpers& helpers() {
  static Helpers h([] {
    if (observer != nullptr) return 0;  // it knows one block at a time
    const char* s = std::getenv("GRIST_EMU_THREADS");
    const int wanted =
        s != nullptr ? std::atoi(s) : static_cast<int>(std::thread::hardware_concurrency());
    return std::min(std::max(wanted, 1), 8) - 1;
  }());
  return h;
}

// Counted from 0. GRIST_EMU_FAULT is for tests of what the program says then.
std::uint64_t launch_that_fails() {
  static const std::uint64_t number = [] {
    const char* s = std::getenv("GRIST_EMU_FAULT");
    return s == nullptr ? ~std::uint64_t{0} : std::strtoull(s, nullptr, 10);
  }();
  return number;
}

// Returns what went wrong; empty: nothing.
std::string run_grid(Grid grid) {
  static std::atomic<std::uint64_t> launches{0};
  Job job;
  job.grid = std::move(grid);
  job.grid.options = options();
  job.grid.number = launches.fetch_add(1);
  if (job.grid.number == launch_that_fails()) return "an illegal memory access was encountered";
  job.blocks = std::uint64_t{job.grid.grid.x} * job.grid.grid.y * job.grid.grid.z;
  if (observer != nullptr) observer->launch_begins();
  helpers().run(job);
  return job.report;
}

struct Attributes {
  std::mutex mutex;
  std::unordered_map<const void*, std::size_t> shared_bytes;  // allowed, per kernel
};
Attributes& attributes() {
  static Attributes a;
  return a;
}
constexpr std::size_t kSharedBytesUnasked = 48 * 1024;

std::string bad_launch(const cudaLaunchConfig_t& c, const void* kernel) {
  const dim3 b = c.blockDim;
  const dim3 g = c.gridDim;
  if (b.x == 0 || b.y == 0 || b.z == 0 || b.z > 64 || std::uint64_t{b.x} * b.y * b.z > kMaxThreads)
    return "blocks of " + std::to_string(std::uint64_t{b.x} * b.y * b.z) + " threads";
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffU || g.y > 65535 || g.z > 65535)
    return "a grid of (" + std::to_string(g.x) + ", " + std::to_string(g.y) + ", " +
           std::to_string(g.z) + ") blocks";
  Attributes& a = attributes();
  const std::lock_guard lock(a.mutex);
  const auto it = a.shared_bytes.find(kernel);
  const std::size_t allowed = it == a.shared_bytes.end() ? kSharedBytesUnasked : it->second;
  if (c.dynamicSmemBytes > allowed)
    return std::to_string(c.dynamicSmemBytes) + " bytes of dynamic shared memory, where " +
           std::to_string(allowed) + " are allowed";
  return "";
}

}  // namespace

// Words that are addresses of mapped pages, but not of device or pinned memory. Two small numbers
// side by side can look like an address; that it is mapped too is not to be expected, but where the
// address sanitizer maps terabytes of shadow: there nothing is looked for. One number beside a zero
// is an address below 4 GiB, where programs linked with -no-pie have their heap.
cudaError_t check_argument(const void* argument, std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  return cudaSuccess;
#endif
  constexpr std::uintptr_t kPage = 4096;
  for (std::size_t at = 0; at + 8 <= bytes; at += 8) {
    std::uintptr_t word = 0;
    std::memcpy(&word, static_cast<const std::byte*>(argument) + at, sizeof word);
    if (word >> 32 == 0 || word >> 47 != 0) continue;
    unsigned char resident = 0;
    auto* page = reinterpret_cast<void*>(word / kPage * kPage);
    if (find_range(reinterpret_cast<const void*>(word)).place == Place::pageable &&
        mincore(page, kPage, &resident) == 0)
      return report(cudaErrorIllegalAddress, "launch: a pointer to host memory in an argument of " +
                                                 std::to_string(bytes) + " bytes, at byte " +
                                                 std::to_string(at));
  }
  return cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel,
                   std::function<void()> body) {
  if (const std::string bad = bad_launch(config, kernel); !bad.empty())
    return report(cudaErrorInvalidConfiguration, "launch: " + bad);
  Grid grid;
  grid.grid = config.gridDim;
  grid.block = config.blockDim;
  grid.shared_bytes = config.dynamicSmemBytes;
  grid.body = std::move(body);
  return enqueue(config.stream, [grid = std::move(grid)] {
    const std::string bad = run_grid(grid);
    return bad.empty() ? cudaSuccess : report(cudaErrorLaunchFailure, bad);
  });
}

}  // namespace grist::emu

extern "C" cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute,
                                            int value) {
  using namespace grist::emu;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<std::size_t>(value) > kMaxSharedBytes)
    return report(cudaErrorInvalidValue, std::to_string(value) + " bytes of shared memory a block");
  Attributes& a = attributes();
  const std::lock_guard lock(a.mutex);
  a.shared_bytes[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}
