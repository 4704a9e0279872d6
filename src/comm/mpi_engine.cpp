#include "mpi_engine.h"

#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <exception>

#include "grist/core/check.h"

namespace grist::comm {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

constexpr microseconds kShortestSleep{20}, kLongestSleep{200};
// Turns that yield before the first sleep. With 200 a barrier of two idle cores takes 3 us, with 50
// it took 50: a wait for a peer's next turn slept. The progress thread shares its core with
// compute.
constexpr int kYieldsOfWaiter = 200, kYieldsInBackground = 10;
constexpr std::size_t kLarge = 64 * 1024;                  // bytes worth waking the progress thread
constexpr microseconds kLinger{5000}, kLingerSleep{1000};  // of the progress thread without work
constexpr microseconds kLongWaitSleep{2000};               // after waits of a fifth of a second
constexpr std::chrono::seconds kGraceWhileUnwinding{1};

// Linux rounds a thread's sleeps up by 50 us otherwise.
void sleep_precisely() {
  thread_local const bool done = prctl(PR_SET_TIMERSLACK, 1000UL) == 0;
  (void)done;
}

// How long to sleep before the next look; zero: only yield.
class Backoff {
 public:
  explicit Backoff(int yields) : yields_(yields) {}
  microseconds next() {
    if (turns_ < yields_) {
      ++turns_;
      return microseconds{0};
    }
    const microseconds now = sleep_;
    sleep_ = std::min(sleep_ * 3 / 2, kLongestSleep);
    return now;
  }
  void reset() { *this = Backoff(yields_); }

 private:
  int yields_;
  int turns_ = 0;
  microseconds sleep_ = kShortestSleep;
};

void pause_for(microseconds time) {
  if (time.count() == 0) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(time);
  }
}

// A thread that no signal handler runs on: they belong to the program's own threads.
template <class Body> std::thread thread_without_signals(Body body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread made(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return made;
}

}  // namespace

std::mutex& mpi_mutex() {
  static std::mutex mutex;
  return mutex;
}

std::string mpi_text(int status) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(status, text.data(), &length) != MPI_SUCCESS)
    return fmt::format("MPI error {}", status);
  return {text.data(), static_cast<std::size_t>(length)};
}

MpiEngine::MpiEngine() : thread_(thread_without_signals([this] { run(); })) {}

MpiEngine::~MpiEngine() {
  bool orderly = false;
  {
    const std::lock_guard lock(mpi_mutex());
    stop_ = true;
    orderly = !broken_ && requests_.empty() && std::uncaught_exceptions() == 0;
  }
  wake_.notify_one();
  thread_.join();
  if (orderly) MPI_Finalize();
}

void MpiEngine::start(Operation& operation, std::span<const Message> messages) {
  bool wake = false;
  {
    const std::lock_guard lock(mpi_mutex());
    throw_if_broken();
    operation.open.store(static_cast<int>(messages.size()), std::memory_order_relaxed);
    for (const Message& m : messages) {
      MPI_Request request = MPI_REQUEST_NULL;
      const auto bytes = static_cast<int>(m.bytes);
      const int status =
          m.receive != nullptr
              ? MPI_Irecv(m.receive, bytes, MPI_BYTE, m.peer, m.tag, MPI_COMM_WORLD, &request)
              : MPI_Isend(m.send, bytes, MPI_BYTE, m.peer, m.tag, MPI_COMM_WORLD, &request);
      if (status != MPI_SUCCESS)
        break_with(ExitCode::peer_lost, fmt::format("rank {}: {}", m.peer, mpi_text(status)));
      throw_if_broken();
      requests_.push_back(request);
      posted_.push_back({&operation, m});
      wake = wake || m.bytes >= kLarge;
    }
    wake = wake || asleep_;
  }
  if (wake) wake_.notify_one();
}

void MpiEngine::wait(Operation& operation) {
  const bool unwinding = std::uncaught_exceptions() > 0;
  const Clock::time_point begin = Clock::now();
  sleep_precisely();
  Backoff backoff(kYieldsOfWaiter);
  waiting_ += 1;
  while (operation.open.load(std::memory_order_acquire) != 0 && !broken_) {
    if (std::unique_lock lock(mpi_mutex(), std::try_to_lock); lock && !broken_) {
      if (progress()) backoff.reset();
      if (unwinding && Clock::now() - begin > kGraceWhileUnwinding)
        break_with(ExitCode::peer_lost, "an operation was given up because of another error");
    }
    if (operation.open.load(std::memory_order_acquire) == 0) break;
    microseconds time = backoff.next();
    if (time == kLongestSleep) {  // a hundredth of the time waited so far
      const auto waited = std::chrono::duration_cast<microseconds>(Clock::now() - begin);
      time = std::clamp(waited / 100, kLongestSleep, kLongWaitSleep);
    }
    pause_for(time);
  }
  stop_waiting();
  if (operation.open.load(std::memory_order_acquire) == 0) return;
  const std::lock_guard lock(mpi_mutex());
  throw_if_broken();
}

// The progress thread takes over what is still on its way.
void MpiEngine::stop_waiting() {
  bool wake = false;
  {
    const std::lock_guard lock(mpi_mutex());
    wake = --waiting_ == 0 && !requests_.empty();
  }
  if (wake) wake_.notify_one();
}

void MpiEngine::run() {
  sleep_precisely();
  std::unique_lock lock(mpi_mutex());
  Backoff backoff(kYieldsInBackground);
  Clock::time_point busy = Clock::now();
  while (!stop_) {
    if (requests_.empty() || broken_) {
      if (Clock::now() - busy < kLinger) {
        wake_.wait_for(lock, kLingerSleep);
      } else {
        asleep_ = true;
        wake_.wait(lock, [this] { return stop_ || (!requests_.empty() && !broken_); });
        asleep_ = false;
        backoff.reset();
      }
      continue;
    }
    busy = Clock::now();
    const bool others_wait = waiting_ > 0;  // and make the progress
    if (others_wait || progress()) backoff.reset();
    const microseconds time = others_wait ? kLingerSleep : backoff.next();
    if (time.count() > 0) {
      wake_.wait_for(lock, time);
    } else {
      lock.unlock();
      sched_yield();
      lock.lock();
    }
  }
}

bool MpiEngine::progress() {
  if (requests_.empty()) return false;
  indices_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int count = 0;
  const int status = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                                  indices_.data(), statuses_.data());
  if (status != MPI_SUCCESS && status != MPI_ERR_IN_STATUS) {
    break_with(ExitCode::peer_lost, mpi_text(status));
    return false;
  }
  if (count == MPI_UNDEFINED || count == 0) return false;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    MPI_Status& s = statuses_[i];
    if (status == MPI_SUCCESS) s.MPI_ERROR = MPI_SUCCESS;
    complete(posted_[static_cast<std::size_t>(indices_[i])], s);
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    requests_[kept] = requests_[i];
    posted_[kept++] = posted_[i];
  }
  requests_.resize(kept);
  posted_.resize(kept);
  return true;
}

void MpiEngine::complete(const Posted& posted, const MPI_Status& status) {
  const Message& m = posted.message;
  int error_class = MPI_SUCCESS;
  if (status.MPI_ERROR != MPI_SUCCESS) MPI_Error_class(status.MPI_ERROR, &error_class);
  MPI_Count received = 0;
  if (m.receive != nullptr) MPI_Get_elements_x(&status, MPI_BYTE, &received);
  const bool short_or_long = m.receive != nullptr && error_class == MPI_SUCCESS &&
                             received != static_cast<MPI_Count>(m.bytes);
  if (short_or_long || error_class == MPI_ERR_TRUNCATE) {
    break_with(ExitCode::internal,
               fmt::format("rank {} sends {} bytes, {} are expected", m.peer, received, m.bytes));
  } else if (error_class != MPI_SUCCESS) {
    break_with(ExitCode::peer_lost, fmt::format("rank {}: {}", m.peer, mpi_text(status.MPI_ERROR)));
  } else {
    posted.operation->open.fetch_sub(1, std::memory_order_release);
  }
}

void MpiEngine::break_with(ExitCode code, const std::string& reason) {
  if (broken_) return;
  error_.emplace(code, reason);
  broken_ = true;
}

void MpiEngine::throw_if_broken() {
  if (broken_) throw Error(*error_);
}

}  // namespace grist::comm
