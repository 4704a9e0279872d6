#pragma once
// Which registers a wgmma may use. An array of a kernel that is an operand of wgmma is memory here,
// on the stack of its thread, and the race checker hears of every access to it.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "emulation/engine.h"

namespace grist::emu {

class Registers {
 public:
  void block_begins(std::size_t threads);
  void fence(int thread);
  // A wgmma uses them until end(); fails unless the thread's last access lies before its last
  // fence.
  void begin(int thread, const void* p, std::size_t bytes, Where where);
  void end(int thread, const void* p);
  // By the program, somewhere on the stack of the running thread. False: a wgmma uses it.
  bool touch(int thread, const void* p, std::size_t bytes);

 private:
  struct Used {
    const std::byte* begin;
    const std::byte* end;
    int products;
  };
  struct Thread {
    std::uint32_t fence = 0;          // when; 0: not in this block
    std::vector<std::uint32_t> last;  // access of each word of the stack: when
    std::vector<Used> used;
  };
  std::uint32_t now_ = 0;  // counts fences
  std::vector<Thread> threads_;
};

}  // namespace grist::emu
