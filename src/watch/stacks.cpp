#include "stacks.h"

#include <dirent.h>
#include <execinfo.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>

namespace grist::watch {

namespace {

constexpr int kThreads = 256, kFrames = 48;
constexpr int kOwnFrames = 2;  // the handler and what the kernel returns through

struct Slot {
  std::atomic<pid_t> thread{0};
  std::atomic<int> num_frames{-1};  // -1: no answer yet
  std::array<void*, kFrames> frames;
};
std::array<Slot, kThreads> slots;  // written by signal handlers, so it must be global
std::mutex one_at_a_time;

int stack_signal() {
  return SIGRTMIN + 5;
}

pid_t this_thread() {
  return static_cast<pid_t>(syscall(SYS_gettid));
}

void on_signal(int /*signal*/) {
  const int kept = errno;
  const pid_t self = this_thread();
  for (Slot& slot : slots) {
    if (slot.thread.load(std::memory_order_acquire) != self) continue;
    slot.num_frames.store(backtrace(slot.frames.data(), kFrames), std::memory_order_release);
    break;
  }
  errno = kept;
}

// Asks every thread but this one; returns how many.
int ask_threads() {
  DIR* folder = opendir("/proc/self/task");
  if (folder == nullptr) return 0;
  int count = 0;
  while (const dirent* entry = readdir(folder)) {
    const pid_t thread = std::atoi(entry->d_name);
    if (thread <= 0 || thread == this_thread() || count == kThreads) continue;
    Slot& slot = slots[static_cast<std::size_t>(count++)];
    slot.num_frames.store(-1, std::memory_order_relaxed);
    slot.thread.store(thread, std::memory_order_release);
    syscall(SYS_tgkill, getpid(), thread, stack_signal());
  }
  closedir(folder);
  return count;
}

void wait_for_answers(int count) {
  for (int tries = 0; tries < 30; ++tries) {
    bool all = true;
    for (int i = 0; i < count; ++i)
      all = all && slots[static_cast<std::size_t>(i)].num_frames.load() >= 0;
    if (all) return;
    const timespec pause{0, 10'000'000};
    nanosleep(&pause, nullptr);
  }
}

void thread_name(pid_t thread, char* name, std::size_t size) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/comm", thread);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t n = file >= 0 ? read(file, name, size - 1) : 0;
  if (file >= 0) close(file);
  name[n > 1 ? n - 1 : 0] = '\0';  // without the newline
}

// One write for a block, so that ranks do not interleave within it.
void write_block(const char* who, const Slot& slot) {
  static char block[16384];
  char name[32];
  const pid_t thread = slot.thread.load();
  thread_name(thread, name, sizeof name);
  const int frames = slot.num_frames.load(std::memory_order_acquire);
  int used = std::snprintf(block, sizeof block, "%s, thread %d (%s):%s\n", who, thread, name,
                           frames < 0 ? " no answer" : "");
  const int scratch = frames > kOwnFrames ? memfd_create("stacks", MFD_CLOEXEC) : -1;
  if (scratch >= 0) {
    backtrace_symbols_fd(slot.frames.data() + kOwnFrames, frames - kOwnFrames, scratch);
    const ssize_t n =
        pread(scratch, block + used, sizeof block - static_cast<std::size_t>(used), 0);
    used += static_cast<int>(n > 0 ? n : 0);
    close(scratch);
  }
  if (write(STDERR_FILENO, block, static_cast<std::size_t>(used)) < 0) return;  // nobody to tell
}

}  // namespace

void install_stack_handler() {
  void* frames[1];
  backtrace(frames, 1);  // loads the unwinder now, not in the handler
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(stack_signal(), &action, nullptr);
}

void write_stacks(const char* who) {
  const std::lock_guard lock(one_at_a_time);  // several monitors in one process: tests
  const int count = ask_threads();
  wait_for_answers(count);
  for (int i = 0; i < count; ++i) {
    Slot& slot = slots[static_cast<std::size_t>(i)];
    write_block(who, slot);
    slot.thread.store(0, std::memory_order_release);
  }
}

}  // namespace grist::watch
