#include "mbarrier.h"

#include <string>

#include "block.h"
#include "observer.h"

namespace grist::emu {

namespace {

// The 64 bits of a barrier. Poisoned memory has the bit above them.
struct Phase {
  std::uint32_t count = 0;    // arrivals that a phase wants
  std::uint32_t pending = 0;  // those that are missing
  std::int32_t bytes = 0;     // announced and not yet come; negative: the other way round
  unsigned parity = 0;
};
constexpr std::uint32_t kMost = (1U << 20) - 1;
constexpr std::int32_t kZeroBytes = 1 << 21;

std::uint64_t packed(const Phase& s) {
  return s.count | std::uint64_t{s.pending} << 20 |
         static_cast<std::uint64_t>(s.bytes + kZeroBytes) << 40 | std::uint64_t{s.parity} << 62;
}

Phase unpacked(const ptx::Barrier* b, Where where) {
  Block& block = *find_this_block();
  if (!block.shared().contains(b, sizeof *b)) fail("an mbarrier outside shared memory", where);
  if (reinterpret_cast<std::uintptr_t>(b) % 8 != 0)
    fail("an mbarrier not aligned to 8 bytes", where);
  if (b->state >> 63 != 0) fail("an mbarrier that was not initialised", where);
  Phase s;
  s.count = b->state & kMost;
  s.pending = b->state >> 20 & kMost;
  s.bytes = static_cast<std::int32_t>(b->state >> 40 & 0x3fffffU) - kZeroBytes;
  s.parity = b->state >> 62 & 1U;
  return s;
}

void keep(ptx::Barrier* b, Phase s) {
  if (s.pending == 0 && s.bytes == 0) {  // the phase ends
    s.pending = s.count;
    s.parity ^= 1U;
    find_this_block()->progress();
  }
  b->state = packed(s);
}

void arrive(ptx::Barrier* b, std::uint32_t bytes, Where where) {
  Phase s = unpacked(b, where);
  if (s.pending == 0)
    fail("arrives at an mbarrier whose " + std::to_string(s.count) +
             " arrivals have come, while it waits for " + std::to_string(s.bytes) + " bytes",
         where);
  --s.pending;
  if (observer != nullptr) observer->release(find_this_block()->current().number, b);
  s.bytes += static_cast<std::int32_t>(bytes);
  if (s.bytes >= kZeroBytes) fail("an mbarrier that waits for 2 MiB or more", where);
  keep(b, s);
}

}  // namespace

void complete_bytes(ptx::Barrier* b, std::uint32_t bytes, Where where) {
  Phase s = unpacked(b, where);
  s.bytes -= static_cast<std::int32_t>(bytes);
  if (s.bytes < 0 && s.pending == 0)
    fail("more bytes come to an mbarrier than were announced", where);
  keep(b, s);
}

}  // namespace grist::emu

namespace grist::ptx {

void barrier_init(Barrier* b, int count, Where where) {
  if (count < 1 || count > static_cast<int>(emu::kMost))
    emu::fail("an mbarrier of " + std::to_string(count) + " arrivals", where);
  b->state = 0;
  emu::unpacked(b, where);  // checks where it lies
  b->state = emu::packed({static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(count)});
  emu::Block& block = *emu::find_this_block();
  block.proxy().barrier_made(b, block.current().number);
}

void fence_barrier_init() {
  emu::Block& block = *emu::find_this_block();
  block.proxy().barriers_fenced(block.current().number);
}

void fence_async_proxy() {
  fence_barrier_init();
  if (emu::observer != nullptr)
    emu::observer->proxy_fence(emu::find_this_block()->current().number);
}

void barrier_arrive(Barrier* b, Where where) {
  emu::arrive(b, 0, where);
}

void barrier_arrive_expect(Barrier* b, std::uint32_t bytes, Where where) {
  emu::arrive(b, bytes, where);
}

void barrier_wait(Barrier* b, unsigned parity, Where where) {
  if (parity > 1) emu::fail("a parity is 0 or 1", where);
  emu::Block& block = *emu::find_this_block();
  const emu::Async mode = block.grid().options.async;
  while (emu::unpacked(b, where).parity == parity) {
    if (mode == emu::Async::random && block.random().below(8) == 0 &&
        block.proxy().let_one_come(mode, block.random()))
      continue;
    emu::pause(where);
  }
  if (emu::observer != nullptr) emu::observer->acquire(block.current().number, b);
}

}  // namespace grist::ptx
