// Where threads of a block meet: warp and warpgroup collectives, barriers.
#include <cstring>
#include <utility>

#include "block.h"
#include "emulation/warp.h"
#include "observer.h"

namespace grist::emu {

namespace {
std::string hex(unsigned x) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", x);
  return text;
}
std::string text_of(const char* name, unsigned mask, Where where) {
  return std::string(name) + " of lanes " + hex(mask) + " at " + where.file + ":" +
         std::to_string(where.line);
}
}  // namespace

void Block::warp_collective(const char* name, unsigned mask, Combine combine, void* payload,
                            Where where) {
  Thread& t = *current_;
  Warp& w = warps_[static_cast<std::size_t>(t.warp())];
  const unsigned me = 1U << t.lane();
  if ((mask & me) == 0) fail(std::string(name) + " whose mask lacks the caller's own lane", where);
  if ((mask & ~w.live) != 0)
    fail(std::string(name) + " whose mask " + hex(mask) +
             " names lanes that ended or never were; live: " + hex(w.live),
         where);
  Meeting* meeting = nullptr;
  Meeting* unused = nullptr;
  for (Meeting& m : w.meetings) {
    if (m.mask == 0) {
      if (unused == nullptr) unused = &m;
    } else if ((m.mask & mask) != 0) {
      if (m.mask != mask || m.combine != combine || !(m.where == where))
        fail("meets others of its warp in another collective: " + text_of(name, mask, where) +
                 ", but " + text_of(m.name, m.mask, m.where),
             where);
      meeting = &m;
    }
  }
  if (meeting == nullptr) {
    meeting = unused;
    if (meeting == nullptr) fail("too many collectives of one warp at a time", where);
    meeting->mask = mask;
    meeting->arrived = 0;
    meeting->combine = combine;
    meeting->name = name;
    meeting->where = where;
    meeting->payloads.fill(nullptr);
  }
  meeting->arrived |= me;
  meeting->payloads[static_cast<std::size_t>(t.lane())] = payload;
  if (meeting->arrived != mask) {
    block_current(State::meeting, name, where);
    return;
  }
  combine(meeting->payloads.data(), mask);
  meeting->mask = 0;
  progress_ = true;
  make_ready(t.warp(), mask & ~me);
}

void Block::warpgroup_collective(const char* name, Combine combine, void* payload, Where where) {
  Thread& t = *current_;
  GroupMeeting& g = groups_[static_cast<std::size_t>(t.number / kWarpgroupThreads)];
  if (g.arrived == 0) {
    g.combine = combine;
    g.name = name;
    g.where = where;
  } else if (g.combine != combine || !(g.where == where)) {
    fail(std::string("threads of a warpgroup meet in ") + name + " and " + g.name + " (" +
             g.where.file + ":" + std::to_string(g.where.line) + ")",
         where);
  }
  g.payloads[static_cast<std::size_t>(t.number % kWarpgroupThreads)] = payload;
  if (++g.arrived < kWarpgroupThreads) {
    block_current(State::meeting, name, where);
    return;
  }
  g.arrived = 0;
  combine(g.payloads.data(), ~0U);
  const int first = t.number / kWarpgroupThreads * (kWarpgroupThreads / kWarpLanes);
  for (int w = first; w < first + kWarpgroupThreads / kWarpLanes; ++w)
    make_ready(w, w == t.warp() ? ~(1U << t.lane()) : ~0U);
  progress_ = true;
}

// ---- barriers ---------------------------------------------------------------------------------

bool Block::barrier_complete(const Barrier& b) const {
  return b.arrived >= (b.threads == kAllThreads ? live_ : b.threads);
}

void Block::check_barrier(const Barrier& b, int id, Where where) {
  if (b.threads != kAllThreads && b.arrived > b.threads)
    fail("barrier " + std::to_string(id) + " of " + std::to_string(b.threads) +
             " threads: " + std::to_string(b.arrived) + " came",
         where);
  for (std::size_t w = 0; w < kMaxWarps; ++w) {
    if (b.present[w] != 0 && (b.present[w] & warps_[w].live) != warps_[w].live)
      fail("barrier " + std::to_string(id) + " met by lanes " + hex(b.present[w]) + " of warp " +
               std::to_string(w) + ", whose live lanes are " + hex(warps_[w].live),
           where);
  }
}

void Block::complete(Barrier& b) {
  for (int w = 0; w < kMaxWarps; ++w) {
    unsigned waiting = b.waiting[static_cast<std::size_t>(w)];
    if (waiting == 0) continue;
    make_ready(w, waiting);
    for (; waiting != 0; waiting &= waiting - 1) {
      const int t = w * kWarpLanes + __builtin_ctz(waiting);
      threads_[static_cast<std::size_t>(t)].sums = b.sums;
      if (observer == nullptr) continue;
      observer->acquire(t, &b);
      observer->acquire(t, &live_);  // threads that ended came too
    }
  }
  if (observer != nullptr) observer->forget(&b);
  b = {};
  progress_ = true;
  if (grid_->options.order == Order::random_warps) draw_warp_order();
}

BarrierSums Block::barrier(int id, int threads, bool predicate, bool wait, Where where) {
  Thread& t = *current_;
  if (id < 0 || id >= kBarriers) fail("no barrier " + std::to_string(id), where);
  if (threads != kAllThreads && (threads <= 0 || threads % kWarpLanes != 0))
    fail("a barrier of " + std::to_string(threads) + " threads: not a multiple of 32", where);
  Barrier& b = barriers_[static_cast<std::size_t>(id)];
  const auto w = static_cast<std::size_t>(t.warp());
  const unsigned me = 1U << t.lane();
  if (b.arrived == 0) b.threads = threads;
  if (b.threads != threads)
    fail("barrier " + std::to_string(id) + " of " + std::to_string(threads) +
             " threads, for others of " + std::to_string(b.threads),
         where);
  if ((b.present[w] & me) != 0) fail("comes twice to barrier " + std::to_string(id), where);
  if (b.present[w] != 0 && !(b.where[w] == where))
    fail("divergent barrier: other lanes of the warp are at " + std::string(b.where[w].file) + ":" +
             std::to_string(b.where[w].line),
         where);
  b.present[w] |= me;
  b.where[w] = where;
  ++b.arrived;
  if (observer != nullptr) observer->release(t.number, &b);
  b.sums.count += predicate ? 1 : 0;
  b.sums.any = b.sums.any || predicate;
  b.sums.all = b.sums.all && predicate;
  if (!barrier_complete(b)) {
    if (!wait) return {};
    b.waiting[w] |= me;
    block_current(State::at_barrier, id == 0 ? "__syncthreads" : "a named barrier", where);
    return t.sums;
  }
  check_barrier(b, id, where);
  const BarrierSums sums = b.sums;
  // All wait for a new choice of who is first, the last to come too.
  if (wait) b.waiting[w] |= me;
  complete(b);
  if (wait) {
    warps_[w].ready &= ~me;  // put back below, by the choice itself
    make_ready(t.warp(), me);
    t.where = where;
    t.doing = "leaving a barrier";
    leave(pick(), false);
  }
  return sums;
}

// ---- shuffles, votes, reductions ----------------------------------------------------------------

namespace {

struct ShufflePayload {
  Shuffle kind;
  std::uint64_t bits;
  int argument;
  int width;
  std::uint64_t result;
};

int source_lane(const ShufflePayload& p, int lane) {
  const int first = lane / p.width * p.width;
  const int in_segment = lane - first;
  int source = in_segment;
  switch (p.kind) {
    case Shuffle::index: source = p.argument & (p.width - 1); break;
    case Shuffle::up: source = in_segment - p.argument; break;
    case Shuffle::down: source = in_segment + p.argument; break;
    case Shuffle::exclusive_or: {
      // A lane above the segment is its own source; one below is read (PTX shfl.bfly).
      const int other = lane ^ p.argument;
      return other >= first + p.width ? lane : other;
    }
  }
  return source < 0 || source >= p.width ? lane : first + source;
}

void combine_shuffle(void* const* payloads, unsigned mask) {
  for (int l = 0; l < kWarpLanes; ++l) {
    if ((mask >> l & 1U) == 0) continue;
    auto& p = *static_cast<ShufflePayload*>(payloads[l]);
    const int source = source_lane(p, l);
    p.result = (mask >> source & 1U) != 0
                   ? static_cast<const ShufflePayload*>(payloads[source])->bits
                   : ~std::uint64_t{0};  // undefined: NaN
  }
}

struct VotePayload {
  Vote kind;
  std::uint64_t value;
  std::uint64_t result;
};

void combine_vote(void* const* payloads, unsigned mask) {
  auto at = [&](int l) -> VotePayload& { return *static_cast<VotePayload*>(payloads[l]); };
  unsigned ballot = 0;
  for (int l = 0; l < kWarpLanes; ++l) {
    if ((mask >> l & 1U) != 0 && at(l).value != 0) ballot |= 1U << l;
  }
  for (int l = 0; l < kWarpLanes; ++l) {
    if ((mask >> l & 1U) == 0) continue;
    VotePayload& p = at(l);
    switch (p.kind) {
      case Vote::all: p.result = ballot == mask ? 1 : 0; break;
      case Vote::any: p.result = ballot != 0 ? 1 : 0; break;
      case Vote::ballot: p.result = ballot; break;
      case Vote::match: {
        p.result = 0;
        for (int o = 0; o < kWarpLanes; ++o) {
          if ((mask >> o & 1U) != 0 && at(o).value == p.value) p.result |= 1U << o;
        }
      }
    }
  }
}

struct ReducePayload {
  Reduce kind;
  unsigned value;
};

unsigned reduced(Reduce kind, unsigned a, unsigned b) {
  const bool less = a < b;
  const bool less_signed = static_cast<int>(a) < static_cast<int>(b);
  switch (kind) {
    case Reduce::add: return a + b;
    case Reduce::min: return less ? a : b;
    case Reduce::max: return less ? b : a;
    case Reduce::min_signed: return less_signed ? a : b;
    case Reduce::max_signed: return less_signed ? b : a;
    case Reduce::bit_and: return a & b;
    case Reduce::bit_or: return a | b;
    case Reduce::bit_xor: return a ^ b;
  }
  return 0;
}

void combine_reduce(void* const* payloads, unsigned mask) {
  const int first = __builtin_ctz(mask);
  auto at = [&](int l) -> ReducePayload& { return *static_cast<ReducePayload*>(payloads[l]); };
  unsigned result = at(first).value;
  for (int l = first + 1; l < kWarpLanes; ++l) {
    if ((mask >> l & 1U) != 0) result = reduced(at(first).kind, result, at(l).value);
  }
  for (int l = first; l < kWarpLanes; ++l) {
    if ((mask >> l & 1U) != 0) at(l).value = result;
  }
}

}  // namespace

std::uint64_t shuffle(Shuffle kind, unsigned mask, std::uint64_t bits, int argument, int width,
                      Where where) {
  if (width < 1 || width > kWarpLanes || (width & (width - 1)) != 0)
    fail("a shuffle of width " + std::to_string(width), where);
  ShufflePayload p = {kind, bits, argument, width, 0};
  warp_collective("shuffle", mask, combine_shuffle, &p, where);
  return p.result;
}

std::uint64_t vote(Vote kind, unsigned mask, std::uint64_t value, Where where) {
  VotePayload p = {kind, value, 0};
  warp_collective("vote", mask, combine_vote, &p, where);
  return p.result;
}

unsigned reduce(Reduce kind, unsigned mask, unsigned value, Where where) {
  ReducePayload p = {kind, value};
  warp_collective("reduction", mask, combine_reduce, &p, where);
  return p.value;
}

}  // namespace grist::emu

void __syncwarp(unsigned mask, grist::emu::Where where) {
  using namespace grist::emu;
  warp_collective(
      "__syncwarp", mask,
      [](void* const*, unsigned lanes) {
        const int warp = find_this_block()->current().warp();
        if (observer != nullptr) observer->meet(warp * kWarpLanes, kWarpLanes, lanes);
      },
      nullptr, where);
}
