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
std::string line_of(const void* code, int line) {
  if (code == nullptr) return "the emulation";
  if (line != 0) return static_cast<const char*>(code) + (":" + std::to_string(line));
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

template <class Clock> void join(Clock& to, const Clock& from) {
  if (to.size() < from.size()) to.resize(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
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

// ---- what orders what ---------------------------------------------------------------------------

void RaceChecker::block_begins(int threads) {
  ++block_;
  const auto n = static_cast<std::size_t>(threads);
  const std::size_t groups = (n + kWarpgroupThreads - 1) / kWarpgroupThreads;
  moments_.assign(n, {Clock(n + groups), {}});
  product_clocks_.assign(groups, 1);
  for (std::size_t t = 0; t < n; ++t) moments_[t].seen[t] = 1;
  objects_.clear();
  registers_.block_begins(n);
  range_begin_ = range_end_ = 0;
}

void RaceChecker::release(int thread, const void* object) {
  const auto t = static_cast<std::size_t>(thread);
  Moment& o = objects_[object];
  join(o.seen, moments_[t].seen);
  join(o.fenced, moments_[t].fenced);
  ++moments_[t].seen[t];
}

void RaceChecker::acquire(int thread, const void* object) {
  const auto found = objects_.find(object);
  if (found == objects_.end()) return;
  Moment& m = moments_[static_cast<std::size_t>(thread)];
  join(m.seen, found->second.seen);
  join(m.fenced, found->second.fenced);
}

// What comes after the fence is not before it.
void RaceChecker::proxy_fence(int thread) {
  const auto t = static_cast<std::size_t>(thread);
  Moment& m = moments_[t];
  m.fenced.resize(m.seen.size());
  m.fenced[t] = m.seen[t]++;
}

void RaceChecker::register_fence(int thread) {
  registers_.fence(thread);
}
void RaceChecker::registers_begin(int thread, const void* p, std::size_t bytes, Where where) {
  registers_.begin(thread, p, bytes, where);
}
void RaceChecker::registers_end(int thread, const void* p) {
  registers_.end(thread, p);
}

// ---- memory -------------------------------------------------------------------------------------

RaceChecker::Memory RaceChecker::memory_of(const void* p, std::size_t bytes) {
  Block& block = *find_this_block();
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (address >= range_begin_ && address < range_end_) return Memory::global;
  if (block.shared().contains(p, bytes)) return Memory::shared;
  const Stack& stack = block.current().stack;
  const auto* b = static_cast<const std::byte*>(p);
  if (b >= stack.bottom() && b < stack.bottom() + stack.size()) return Memory::stack;
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
  return before.thread != now.thread && present().seen[before.thread] < before.clock;
}

const RaceChecker::Moment& RaceChecker::present() const {
  return moments_[static_cast<std::size_t>(find_this_block()->current().number)];
}

std::string RaceChecker::name_of(const Access& a) const {
  if (a.block == block_ && a.thread >= moments_.size())
    return "wgmma of warpgroup " + std::to_string(a.thread - moments_.size());
  return "thread " + std::to_string(a.thread);
}

void RaceChecker::report(const char* rule, const char* what, const Access& before,
                         const Access& now, const void* p) {
  Block& block = *find_this_block();
  const char* kinds[] = {"reads", "writes", "changes atomically"};
  std::string text =
      std::string(rule) + ": " + kinds[static_cast<int>(now.kind)] + " " +
      (block.shared().contains(p, 1)
           ? "byte " + std::to_string(static_cast<const std::byte*>(p) - block.shared().data()) +
                 " of dynamic shared memory"
           : describe_address(p)) +
      ", which " + name_of(before) + (before.block == now.block ? "" : " of another block") + " " +
      what + "\n  now:    " + line_of(now.code, now.line) +
      "\n  before: " + line_of(before.code, before.line);
  block.fail(text, {});
}

void RaceChecker::keep_read(Cell& c, const Access& now, Memory memory) const {
  for (Access& r : c.reads) {
    const bool past = r.block < (memory == Memory::shared ? block_ : first_block_);
    if (past ||
        (r.block == now.block && (r.thread == now.thread || present().seen[r.thread] >= r.clock))) {
      r = now;
      return;
    }
  }
  c.reads[now.thread % 2] = now;
}

// A read that has come back needs no fence before the async proxy writes: nothing can change it.
void RaceChecker::check_handed_over(const Cell& c, const Access& now, Memory memory,
                                    const void* p) {
  check_order(c, now, memory, p);
  const Access& w = c.write;
  if (w.block != block_ || w.proxy == Proxy::async) return;
  // fence_async_proxy() is for shared memory alone.
  const Clock& fenced = present().fenced;
  if (memory == Memory::global || fenced.empty() || fenced[w.thread] < w.clock)
    report("no fence.proxy.async", "has written by ordinary stores or cp.async", w, now, p);
}

void RaceChecker::check_order(const Cell& c, const Access& now, Memory memory, const void* p) {
  if (c.in_flight && c.write.block == block_)
    report("a race", "has an asynchronous copy write at this time", c.write, now, p);
  if (conflict(c.write, now, memory))
    report("a race", c.write.kind == Kind::atomic ? "has changed atomically" : "has written",
           c.write, now, p);
}

void RaceChecker::visit(Cell& c, const Access& now, Memory memory, const void* p) {
  check_order(c, now, memory, p);
  if (now.kind == Kind::read) {
    keep_read(c, now, memory);
    return;
  }
  if (c.readers > 0 && c.handed_over.block == block_)
    report("a race", "lets the async proxy read at this time", c.handed_over, now, p);
  for (const Access& r : c.reads) {
    if (conflict(r, now, memory)) report("a race", "has read", r, now, p);
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
  if (memory == Memory::stack) {
    if (!registers_.touch(block->current().number, p, bytes))
      block->fail(
          "touches registers that a wgmma uses, before the wait for it, at " + line_of(code, 0),
          {});
    return;
  }
  const Access now = access_now(kind, Proxy::generic, code);
  for_cells(p, bytes, [&](Cell& c) { visit(c, now, memory, p); });
}

RaceChecker::Access RaceChecker::access_now(Kind kind, Proxy proxy, const void* code,
                                            int line) const {
  const auto t = static_cast<std::size_t>(find_this_block()->current().number);
  return {code, line, block_, moments_[t].seen[t], static_cast<std::uint16_t>(t), kind, proxy};
}

void RaceChecker::engine_access(const void* p, std::size_t bytes, Kind kind, Proxy proxy,
                                Where where) {
  const Memory memory = memory_of(p, bytes);
  if (memory != Memory::shared && memory != Memory::global) return;
  const Access now = access_now(kind, proxy, where.file, where.line);
  for_cells(p, bytes, [&](Cell& c) { visit(c, now, memory, p); });
}

void RaceChecker::reads(const void* p, std::size_t bytes, Proxy proxy, Where where) {
  engine_access(p, bytes, Kind::read, proxy, where);
}
void RaceChecker::writes(const void* p, std::size_t bytes, Proxy proxy, Where where) {
  engine_access(p, bytes, Kind::write, proxy, where);
}

void RaceChecker::hands_over(const void* p, std::size_t bytes, Where where) {
  const Memory memory = memory_of(p, bytes);
  if (memory != Memory::shared && memory != Memory::global) return;
  const Access now = access_now(Kind::read, Proxy::async, where.file, where.line);
  for_cells(p, bytes, [&](Cell& c) {
    check_handed_over(c, now, memory, p);
    if (c.handed_over.block != block_) c.readers = 0;  // of a block that failed
    c.handed_over = now;
    ++c.readers;
  });
}
void RaceChecker::product_reads(int warpgroup, const void* p, std::size_t bytes, Where where) {
  Access now = access_now(Kind::read, Proxy::async, where.file, where.line);
  now.thread = static_cast<std::uint16_t>(moments_.size() + static_cast<std::size_t>(warpgroup));
  now.clock = product_clocks_[static_cast<std::size_t>(warpgroup)];
  for_cells(p, bytes, [&](Cell& c) { visit(c, now, Memory::shared, p); });
}
void RaceChecker::products_waited(int warpgroup) {
  const auto g = static_cast<std::size_t>(warpgroup);
  const std::size_t first = g * kWarpgroupThreads;
  for (std::size_t t = first; t < first + kWarpgroupThreads; ++t)
    moments_[t].seen[moments_.size() + g] = product_clocks_[g];
  ++product_clocks_[g];
}
void RaceChecker::takes_back(const void* p, std::size_t bytes) {
  for_cells(p, bytes, [](Cell& c) { --c.readers; });
}

void RaceChecker::copy_begins(int, const void* to, std::size_t bytes, Proxy proxy, Where where) {
  if (proxy == Proxy::async) {
    const Access now = access_now(Kind::write, proxy, where.file, where.line);
    for_cells(to, bytes, [&](const Cell& c) { check_handed_over(c, now, Memory::shared, to); });
  }
  engine_access(to, bytes, Kind::write, proxy, where);
  for_cells(to, bytes, [](Cell& c) { c.in_flight = true; });
}

void RaceChecker::copy_ends(int thread, const void* to, std::size_t bytes, StoreAt at) {
  const auto t = static_cast<std::size_t>(thread);
  for_cells(to, bytes, [&](Cell& c) {
    c.in_flight = false;
    if (at == StoreAt::end) c.write.clock = moments_[t].seen[t];
  });
}

}  // namespace grist::emu
