#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#ifndef __x86_64__
#error "the emulation of CUDA switches stacks on x86-64 only; set GRIST_CUDA_INCLUDE to nothing"
#endif

// The registers that a callee keeps (System V ABI), then the stack pointer.
asm(R"(
.text
.globl grist_emu_switch
.type grist_emu_switch, @function
grist_emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size grist_emu_switch, .-grist_emu_switch
)");

namespace grist::emu {

namespace {
constexpr std::size_t kGuard = 4096;
constexpr std::size_t kColours = 64;              // of 64 bytes: one page
constexpr std::ptrdiff_t kLastCalls = 16 * 1024;  // what a function needs that only switches away

// Frames that a fiber never left are still poisoned.
void unpoison([[maybe_unused]] std::byte* stack, [[maybe_unused]] std::size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack, size);
#endif
}
}  // namespace

Stack::~Stack() {
  if (base_ == nullptr) return;
  unpoison(base_, kSize);
  munmap(base_ - kGuard, kSize + kGuard);
}

Stack::Stack(Stack&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)), colour_(other.colour_) {}

void Stack::allocate(int colour) {
  if (base_ != nullptr) return;
  void* p = mmap(nullptr, kSize + kGuard, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (p == MAP_FAILED || mprotect(p, kGuard, PROT_NONE) != 0) {
    std::perror("CUDA emulation: no memory for the stack of a thread");
    std::abort();
  }
  base_ = static_cast<std::byte*>(p) + kGuard;
  colour_ = static_cast<std::size_t>(colour) % kColours * 64;
}

void* Stack::prepare(void (*entry)()) {
  std::byte* from = base_;
  if (last_frame_ != nullptr && last_frame_ - base_ > kLastCalls) from = last_frame_ - kLastCalls;
  last_frame_ = nullptr;
  unpoison(from, static_cast<std::size_t>(base_ + kSize - from));
  auto* top = reinterpret_cast<std::uint64_t*>(base_ + kSize - colour_ - 64);
  // Six registers, the address that the switch returns to, and the one entry() would return to: the
  // stack is then aligned as after a call.
  std::memset(top - 8, 0, 8 * sizeof *top);
  top[-2] = reinterpret_cast<std::uint64_t>(entry);
  return top - 8;
}

bool Stack::guard_contains(const void* p) const {
  const auto* b = static_cast<const std::byte*>(p);
  return base_ != nullptr && b >= base_ - kGuard && b < base_;
}

}  // namespace grist::emu
