#pragma once
// Stacks and the switch between them.
#include <cstddef>

namespace grist::emu {

// A stack with a guard page below. The pages are taken from the system when first touched.
class Stack {
 public:
  Stack() = default;
  ~Stack();
  Stack(Stack&& other) noexcept;
  Stack& operator=(Stack&&) = delete;
  // No two fibers' stacks begin at the same offset of a page: else they compete for the same lines
  // of the caches.
  void allocate(int colour);
  bool allocated() const { return base_ != nullptr; }
  // What to switch to so that the fiber begins in entry(), which must not return.
  void* prepare(void (*entry)());
  // The fiber leaves for good, in the function with this frame: below it nothing is poisoned.
  void ends_in(void* frame) { last_frame_ = static_cast<std::byte*>(frame); }
  std::byte* bottom() const { return base_; }  // lowest usable address
  std::size_t size() const { return kSize; }
  bool guard_contains(const void* p) const;

 private:
#ifdef __SANITIZE_ADDRESS__
  static constexpr std::size_t kSize = 256 * 1024;
#else
  static constexpr std::size_t kSize = 64 * 1024;
#endif
  std::byte* base_ = nullptr;
  std::byte* last_frame_ = nullptr;
  std::size_t colour_ = 0;
};

// Saves the running context in *from and continues `to`.
extern "C" void grist_emu_switch(void** from, void* to);

}  // namespace grist::emu
