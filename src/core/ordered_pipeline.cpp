#include "grist/core/ordered_pipeline.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "grist/core/check.h"
#include "grist/core/host.h"
#include "grist/core/stop.h"

namespace grist {

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::size_t budget(const PipelineOptions& options) {
  if (options.max_bytes > 0) return options.max_bytes;
  return std::max(256 * kMiB, static_cast<std::size_t>(options.workers()) * 16 * kMiB);
}

void refuse_stop() {
  if (stop_signal() != 0) fail(ExitCode::preempted, "stopped by signal {}", stop_signal());
}

// Item n lives in slot n % size. Items are taken by workers in ascending order, so when one fails
// all before it are taken too: the writer needs none of those behind it.
class Pipeline {
 public:
  Pipeline(const PipelineOptions& options, const PipelineStages& stages)
      : stages_(stages), budget_(budget(options)), slots_(options.slots()) {}
  ~Pipeline() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      wake_all();
    }
    join();
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  void run(int workers) {
    threads_.emplace_back([this] { read_all(); });
    for (int w = 0; w < workers; ++w) threads_.emplace_back([this, w] { serve(w); });
    for (std::size_t n = 0; wait_for_item(n); ++n) {
      stages_.write(n % slots_.size());
      give_back(n);
    }
    join();
    if (broken_) std::rethrow_exception(broken_);  // a worker that was never needed
  }

 private:
  struct Slot {
    bool done = false;  // worked on, not yet written
    std::size_t bytes = 0;
    std::exception_ptr error;  // of the worker
  };

  void join() {
    for (std::thread& t : threads_) t.join();
    threads_.clear();
  }
  void wake_all() {
    room_.notify_all();
    work_.notify_all();
    done_.notify_all();
  }

  // ---- the writer ----
  // Item n can be written; false: there is no item n.
  bool wait_for_item(std::size_t n) {
    std::unique_lock lock(mutex_);
    for (;; done_.wait_for(lock, std::chrono::milliseconds(200))) {
      refuse_stop();
      if (broken_) std::rethrow_exception(broken_);
      const Slot& slot = slots_[n % slots_.size()];
      if (slot.done && slot.error) std::rethrow_exception(slot.error);
      if (slot.done) return true;
      if (!ended_ || n < read_) continue;
      if (read_error_) std::rethrow_exception(read_error_);
      return false;
    }
  }

  void give_back(std::size_t n) {
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[n % slots_.size()];
    held_ -= slot.bytes;
    slot = {};
    ++written_;
    room_.notify_one();
  }

  // ---- the reader ----
  bool wait_for_room() {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [&] {
      const std::size_t in_flight = read_ - written_;
      return stopped_ || failed_ ||
             (in_flight < slots_.size() && (held_ < budget_ || in_flight == 0));
    });
    return !stopped_ && !failed_;
  }

  void read_all() {
    try {
      while (wait_for_room()) {
        const std::size_t slot = read_ % slots_.size();  // read_ changes on this thread alone
        const bool more = stages_.read(slot);
        const std::size_t bytes = more ? stages_.bytes(slot) : 0;
        const std::lock_guard lock(mutex_);
        if (!more) return end(nullptr);
        hold(slots_[slot], bytes);
        ++read_;
        work_.notify_one();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      end(std::current_exception());
    }
  }

  void hold(Slot& slot, std::size_t bytes) {
    held_ = held_ - slot.bytes + bytes;
    slot.bytes = bytes;
  }

  void end(std::exception_ptr error) {
    ended_ = true;
    read_error_ = std::move(error);
    wake_all();
  }

  // ---- workers ----
  static constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

  std::size_t take_item() {
    std::unique_lock lock(mutex_);
    work_.wait(lock, [&] { return stopped_ || failed_ || ended_ || taken_ < read_; });
    if (stopped_ || failed_ || taken_ == read_) return kNone;
    return taken_++;
  }

  void serve(int worker) {
    try {
      const auto work_on = stages_.make_worker(worker);
      for (std::size_t n = 0; (n = take_item()) != kNone;) finish(n, outcome(work_on, n));
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!broken_) broken_ = std::current_exception();
      wake_all();
    }
  }

  std::exception_ptr outcome(const std::function<void(std::size_t)>& work_on, std::size_t n) {
    try {
      work_on(n % slots_.size());
      return nullptr;
    } catch (...) {
      return std::current_exception();
    }
  }

  void finish(std::size_t n, std::exception_ptr error) {
    const std::size_t bytes = stages_.bytes(n % slots_.size());
    const std::lock_guard lock(mutex_);
    Slot& slot = slots_[n % slots_.size()];
    hold(slot, bytes);
    slot.done = true;
    if (error) failed_ = true;
    slot.error = std::move(error);
    if (failed_) return wake_all();
    done_.notify_one();
    room_.notify_one();  // work may have given memory back
  }

  const PipelineStages& stages_;
  const std::size_t budget_;
  std::mutex mutex_;
  std::condition_variable room_, work_, done_;  // what reader, workers, writer wait for
  std::vector<Slot> slots_;
  std::size_t read_ = 0, taken_ = 0, written_ = 0;  // items so far
  std::size_t held_ = 0;                            // bytes in flight
  bool ended_ = false;                              // nothing more will be read
  bool failed_ = false;                             // an item's work threw
  bool stopped_ = false;
  std::exception_ptr read_error_;
  std::exception_ptr broken_;  // no item's
  std::vector<std::thread> threads_;
};

}  // namespace

int PipelineOptions::workers() const {
  return threads > 0 ? threads : available_cores();
}

std::size_t PipelineOptions::slots() const {
  return 2 * static_cast<std::size_t>(workers()) + 2;
}

void run_in_order(const PipelineOptions& options, const PipelineStages& stages) {
  Pipeline(options, stages).run(options.workers());
}

}  // namespace grist
