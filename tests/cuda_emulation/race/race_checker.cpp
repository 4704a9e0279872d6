#include "race_checker.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "../block.h"
#include "../device_memory.h"

namespace grist::emu {

namespace {

// "kernel at file:line" of an instruction, by the tool that every compiler comes with.
std::string line_of(const void* code) {
  if (code == nullptr) return "the emulation";
  char command[128];
  std::snprintf(command, sizeof command, "addr2line -Cfpi -e /proc/%d/exe %p 2>/dev/null",
                static_cast<int>(getpid()), code);
  std::string text;
  if (FILE* f = popen(command, "r")) {
    char part[256];
    while (std::fgets(part, sizeof part, f) != nullptr) text += part;
    pclose(f);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.empty() ? "an unknown line" : text;
}

void join(std::vector<std::uint32_t>& to, const std::vector<std::uint32_t>& from) {
  if (to.empty()) to.resize(from.size());
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = std::max(to[i], from[i]);
}

}  // namespace

RaceChecker& race_checker() {
  static RaceChecker* checker = new RaceChecker;
  return *checker;
}
namespace {
// Linked in, it listens.
[[maybe_unused]] const bool installed = (observer = &race_checker()) != nullptr;
}  // namespace

// ---- what orders what
// -----------------------------------------------------------------------------

void RaceChecker::block_begins(int threads) {
  ++block_;
  const auto n = static_cast<std::size_t>(threads);
  clocks_.assign(n, Clock(n));
  for (std::size_t t = 0; t < n; ++t) clocks_[t][t] = 1;
  objects_.clear();
  range_begin_ = range_end_ = 0;
}

void RaceChecker::release(int thread, const void* object) {
  const auto t = static_cast<std::size_t>(thread);
  join(objects_[object], clocks_[t]);
  ++clocks_[t][t];
}

void RaceChecker::acquire(int thread, const void* object) {
  const auto found = objects_.find(object);
  if (found != objects_.end()) join(clocks_[static_cast<std::size_t>(thread)], found->second);
}

// ---- memory
// ---------------------------------------------------------------------------------------

RaceChecker::Memory RaceChecker::memory_of(const void* p, std::size_t bytes) {
  Block& block = *find_this_block();
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (address >= range_begin_ && address < range_end_) return Memory::global;
  if (block.shared().contains(p, bytes)) return Memory::shared;
  const Stack& stack = block.current().stack;
  const auto* b = static_cast<const std::byte*>(p);
  if (b >= stack.bottom() && b < stack.bottom() + stack.size()) return Memory::other;
  if (in_static_shared(p, bytes)) return Memory::shared;
  const Range r = find_range(p);
  if (r.place != Place::device) return Memory::other;
  range_begin_ = reinterpret_cast<std::uintptr_t>(r.begin);
  range_end_ = range_begin_ + r.bytes;
  return Memory::global;
}

RaceChecker::Cell& RaceChecker::cell(std::uintptr_t address) {
  const std::uintptr_t number = address / kPageBytes;
  if (last_page_ == nullptr || number != last_page_number_) {
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>();
    last_page_ = page.get();
    last_page_number_ = number;
  }
  return (*last_page_)[address % kPageBytes / kCellBytes];
}

template <class F> void RaceChecker::for_cells(const void* p, std::size_t bytes, F&& f) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  for (std::uintptr_t a = begin / kCellBytes * kCellBytes; a < begin + bytes; a += kCellBytes)
    f(cell(a));
}

bool RaceChecker::conflict(const Access& before, const Access& now, Memory memory) const {
  if (before.kind == Kind::read && now.kind == Kind::read) return false;
  if (before.kind == Kind::atomic && now.kind == Kind::atomic) return false;
  if (before.block != now.block)  // shared memory then was another block's
    return memory == Memory::global && before.block >= first_block_;
  return before.thread != now.thread && clocks_[now.thread][before.thread] < before.clock;
}

void RaceChecker::report(const char* what, const Access& before, const Access& now, const void* p) {
  Block& block = *find_this_block();
  const char* kinds[] = {"reads", "writes", "changes atomically"};
  std::string text =
      std::string("a race: ") + kinds[static_cast<int>(now.kind)] + " " +
      (block.shared().contains(p, 1)
           ? "byte " + std::to_string(static_cast<const std::byte*>(p) - block.shared().data()) +
                 " of dynamic shared memory"
           : describe_address(p)) +
      ", which thread " + std::to_string(before.thread) +
      (before.block == now.block ? "" : " of another block") + " " + what +
      "\n  now:    " + line_of(now.code) + "\n  before: " + line_of(before.code);
  block.fail(text, {});
}

void RaceChecker::keep_read(Cell& c, const Access& now, Memory memory) const {
  for (Access& r : c.reads) {
    const bool past = r.block < (memory == Memory::shared ? block_ : first_block_);
    if (past || (r.block == now.block &&
                 (r.thread == now.thread || clocks_[now.thread][r.thread] >= r.clock))) {
      r = now;
      return;
    }
  }
  c.reads[now.thread % 2] = now;
}

void RaceChecker::visit(Cell& c, const Access& now, Memory memory, const void* p) {
  if (c.in_flight && c.write.block == block_)
    report("has an asynchronous copy write at this time", c.write, now, p);
  if (conflict(c.write, now, memory))
    report(c.write.kind == Kind::atomic ? "has changed atomically" : "has written", c.write, now,
           p);
  if (now.kind == Kind::read) {
    keep_read(c, now, memory);
    return;
  }
  for (const Access& r : c.reads) {
    if (conflict(r, now, memory)) report("has read", r, now, p);
  }
  c.write = now;
  c.in_flight = false;
  c.reads = {};
}

void RaceChecker::access(const void* p, std::size_t bytes, Kind kind, const void* code) {
  Block* block = find_this_block();
  if (block == nullptr || !block->running()) return;
  const Memory memory = memory_of(p, bytes);
  if (memory == Memory::other) return;
  const auto t = static_cast<std::size_t>(block->current().number);
  const Access now = {block_, code, clocks_[t][t], static_cast<std::uint16_t>(t), kind};
  for_cells(p, bytes, [&](Cell& c) { visit(c, now, memory, p); });
}

void RaceChecker::reads(const void* p, std::size_t bytes) {
  access(p, bytes, Kind::read, nullptr);
}
void RaceChecker::writes(const void* p, std::size_t bytes) {
  access(p, bytes, Kind::write, nullptr);
}

void RaceChecker::copy_begins(int, const void* to, std::size_t bytes) {
  access(to, bytes, Kind::write, __builtin_return_address(0));
  for_cells(to, bytes, [](Cell& c) { c.in_flight = true; });
}

void RaceChecker::copy_ends(int thread, const void* to, std::size_t bytes, StoreAt at) {
  const auto t = static_cast<std::size_t>(thread);
  for_cells(to, bytes, [&](Cell& c) {
    c.in_flight = false;
    if (at == StoreAt::end) c.write.clock = clocks_[t][t];
  });
}

}  // namespace grist::emu
