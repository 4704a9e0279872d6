// Who of a block's threads runs next.
#include <sched.h>

#include <chrono>
#include <cstdlib>
#include <utility>

#include "block.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace grist::emu {

namespace {

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::int64_t timeout_ms() {  // of a loop that waits for another block or the host
  static const std::int64_t ms = [] {
    const char* s = std::getenv("GRIST_EMU_TIMEOUT");
    return s == nullptr ? std::int64_t{20} * 1000 : std::atoll(s) * 1000;
  }();
  return ms;
}

}  // namespace

void Block::make_ready(int warp, unsigned lanes) {
  Warp& w = warps_[static_cast<std::size_t>(warp)];
  w.ready |= lanes;
  if (w.ready != 0) ready_warps_ |= 1U << warp;
}

void Block::draw_warp_order() {
  for (std::uint32_t& r : rank_) r = static_cast<std::uint32_t>(random_.next());
}

int Block::pick_warp() {
  const unsigned ready = ready_warps_;
  const Order order = grid_->options.order;
  if (order == Order::random_lanes) {
    int skip = static_cast<int>(random_.below(static_cast<unsigned>(__builtin_popcount(ready))));
    unsigned rest = ready;
    while (skip-- > 0) rest &= rest - 1;
    return __builtin_ctz(rest);
  }
  if (order == Order::random_priorities && ++picks_ % 48 == 0)
    rank_[random_.below(kMaxWarps)] = static_cast<std::uint32_t>(random_.next());
  if (order == Order::random_priorities ||
      (order == Order::random_warps && (ready >> warp_ & 1U) == 0)) {
    int best = __builtin_ctz(ready);
    for (unsigned rest = ready; rest != 0; rest &= rest - 1) {
      const int w = __builtin_ctz(rest);
      if (rank_[static_cast<std::size_t>(w)] < rank_[static_cast<std::size_t>(best)]) best = w;
    }
    return best;
  }
  if ((ready >> warp_ & 1U) != 0) return warp_;  // stay while it has work
  if (order == Order::reverse) {
    const unsigned below = ready & ((1U << warp_) - 1);
    return 31 - __builtin_clz(below != 0 ? below : ready);
  }
  const unsigned above = warp_ == 31 ? 0 : ready & (~0U << (warp_ + 1));
  return __builtin_ctz(above != 0 ? above : ready);
}

int Block::pick_lane(unsigned ready) {
  const Order order = grid_->options.order;
  if (order == Order::reverse) return 31 - __builtin_clz(ready);
  if (order == Order::random_lanes) {
    int skip = static_cast<int>(random_.below(static_cast<unsigned>(__builtin_popcount(ready))));
    while (skip-- > 0) ready &= ready - 1;
  }
  return __builtin_ctz(ready);
}

Thread* Block::pick() {
  if (ready_warps_ == 0 && !wake_pollers()) return nullptr;
  warp_ = pick_warp();
  Warp& w = warps_[static_cast<std::size_t>(warp_)];
  const int lane = pick_lane(w.ready);
  w.ready &= ~(1U << lane);
  if (w.ready == 0) ready_warps_ &= ~(1U << warp_);
  return &threads_[static_cast<std::size_t>(warp_ * kWarpLanes + lane)];
}

// Nobody is ready. Waiting loops look again if something has happened since; those that wait for
// what is outside the block, for a limited time.
bool Block::wake_pollers() {
  if (!progress_) progress_ = proxy_.let_one_come(grid_->options.async, random_);
  if (!progress_) {
    if (!polls_others_) return false;
    if (now_ms() - poll_start_ > timeout_ms()) return false;
    sched_yield();
  }
  progress_ = polls_others_ = false;
  make_pollers_ready();
  return ready_warps_ != 0;
}

void Block::make_pollers_ready() {
  for (int w = 0; w < kMaxWarps; ++w) {
    Warp& warp = warps_[static_cast<std::size_t>(w)];
    make_ready(w, std::exchange(warp.polling, 0U));
  }
}

void Block::progress() {
  progress_ = true;
  const Order order = grid_->options.order;
  if (order != Order::forward && order != Order::reverse) make_pollers_ready();
}

// Continues `next`; null: the block's end. A dying context never comes back.
void Block::leave(Thread* next, bool dying) {
  Thread* from = current_;
  if (next == from && next != nullptr) return;  // its saved stack pointer is not the present one
  static_cast<void>(dying);
#ifdef __SANITIZE_ADDRESS__
  void** save = dying ? nullptr : &from->fake_stack;
  if (next != nullptr)
    __sanitizer_start_switch_fiber(save, next->stack.bottom(), next->stack.size());
  else
    __sanitizer_start_switch_fiber(save, main_bottom_, main_size_);
#endif
  if (next != nullptr) {
    current_ = next;
    threadIdx = next->index;
    grist_emu_switch(&from->sp, next->sp);
  } else {
    grist_emu_switch(&from->sp, main_sp_);
  }
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void Block::block_current(State state, const char* doing, Where where) {
  Thread& t = *current_;
  if (state != State::polling || t.where.file == nullptr || !(t.where == where)) progress_ = true;
  t.state = state;
  t.doing = doing;
  t.where = where;
  Thread* next = pick();
  if (next == nullptr) fail(deadlock(), where);
  leave(next, false);
  t.state = State::ready;
}

void Block::pause(Where where, bool for_others) {
  Thread& t = *current_;
  warps_[static_cast<std::size_t>(t.warp())].polling |= 1U << t.lane();
  if (for_others) {
    if (progress_ || poll_start_ == 0) poll_start_ = now_ms();
    polls_others_ = true;
  }
  block_current(State::polling, "polling", where);
}

}  // namespace grist::emu
