#include "fault.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "block.h"
#include "device_memory.h"

namespace grist::emu {

#ifdef __SANITIZE_ADDRESS__
void watch_faults_of_this_os_thread() {}  // the sanitizer reports them better
// Threads of a failed block never leave their functions, nor free what these hold.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:grist::emu::Block::thread_main\n";
}
#else

namespace {

constexpr std::size_t kStackBytes = 64 * 1024;

struct AlternateStack {
  void* handler = nullptr;  // of the signal handler
  void* report = nullptr;   // where the report is made: the fiber's own stack may be at its end
  AlternateStack() {
    void* p =
        mmap(nullptr, 2 * kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) std::abort();
    handler = p;
    report = static_cast<std::byte*>(p) + kStackBytes;
    stack_t s = {};
    s.ss_sp = handler;
    s.ss_size = kStackBytes;
    sigaltstack(&s, nullptr);
  }
  ~AlternateStack() {
    stack_t s = {};
    s.ss_flags = SS_DISABLE;
    sigaltstack(&s, nullptr);
    munmap(handler, 2 * kStackBytes);
  }
};

constinit thread_local void* report_stack = nullptr;
constinit thread_local const void* fault_address = nullptr;
constinit thread_local const void* fault_code = nullptr;
constinit thread_local int fault_signal = 0;

void land() {
  Block& block = *find_this_block();
  std::string what;
  if (fault_signal == SIGFPE)
    what = "an integer division by zero";
  else if (block.stack_guard_at(fault_address) != nullptr)
    what = "the stack is full (64 KiB): too large or too deep a kernel";
  else if (block.shared().guard_contains(fault_address))
    what = "an access outside dynamic shared memory (" + std::to_string(block.shared().size()) +
           " bytes): " +
           std::to_string(static_cast<const std::byte*>(fault_address) - block.shared().data()) +
           " bytes from its begin";
  else
    what = "a bad access to memory: " + describe_address(fault_address);
  char code[64];
  std::snprintf(code, sizeof code, ", by the instruction at %p", fault_code);
  block.fail(what + code, {});
}

void handle(int signal, siginfo_t* info, void* context) {
  Block* block = find_this_block();
  if (block == nullptr || !block->running() || report_stack == nullptr) {
    if (find_range(info->si_addr).place == Place::device)
      std::fputs("CUDA emulation: the host touches device memory\n", stderr);
    ::signal(signal, SIG_DFL);
    return;  // the instruction is tried again
  }
  fault_address = info->si_addr;
  fault_signal = signal;
  auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  fault_code = reinterpret_cast<const void*>(registers[REG_RIP]);
  registers[REG_RSP] =
      static_cast<greg_t>(reinterpret_cast<std::uintptr_t>(report_stack) + kStackBytes - 8);
  registers[REG_RIP] = static_cast<greg_t>(reinterpret_cast<std::uintptr_t>(&land));
}

}  // namespace

void watch_faults_of_this_os_thread() {
  thread_local const AlternateStack stack;
  report_stack = stack.report;
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (const int s : {SIGSEGV, SIGBUS, SIGFPE}) sigaction(s, &action, nullptr);
    return true;
  }();
  static_cast<void>(installed);
}
#endif

}  // namespace grist::emu
