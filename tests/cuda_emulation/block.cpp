#include "block.h"

#include <pthread.h>

#include <cstdlib>
#include <numeric>
#include <utility>

#include "fault.h"
#include "observer.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

constinit thread_local uint3 threadIdx = {0, 0, 0};
constinit thread_local uint3 blockIdx = {0, 0, 0};
constinit thread_local dim3 blockDim = {1, 1, 1};
constinit thread_local dim3 gridDim = {1, 1, 1};

namespace grist::emu {

namespace {

constinit thread_local Block* block_of_this_os_thread = nullptr;

void enter_thread() {
  block_of_this_os_thread->thread_main();
}

// Block number i of n in an order drawn from the seed: i * stride + start, which meets every block.
std::uint64_t scattered(std::uint64_t i, std::uint64_t n, std::uint64_t seed) {
  Random random(seed);
  std::uint64_t stride = random.next() % n | 1U;
  while (std::gcd(stride, n) != 1) stride += 2;
  return (i * (stride % n) + random.next() % n) % n;
}

std::uint64_t ordered(std::uint64_t i, std::uint64_t n, const Options& o, std::uint64_t launch) {
  if (o.order == Order::forward) return i;
  if (o.order == Order::reverse) return n - 1 - i;
  return scattered(i, n, o.seed * 1000003 + launch);
}

}  // namespace

Block& this_block() {
  thread_local Block block;
  block_of_this_os_thread = &block;
  return block;
}

Block* find_this_block() {
  return block_of_this_os_thread;
}

Block::Block() : threads_(kMaxThreads) {
  for (int i = 0; i < kMaxThreads; ++i) threads_[static_cast<std::size_t>(i)].number = i;
  pthread_attr_t attributes;
  if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
    void* bottom = nullptr;
    pthread_attr_getstack(&attributes, &bottom, &main_size_);
    main_bottom_ = bottom;
    pthread_attr_destroy(&attributes);
  }
  watch_faults_of_this_os_thread();
}

Block::~Block() {
  block_of_this_os_thread = nullptr;
}

void Block::start(const Grid& grid, std::uint64_t linear_index) {
  grid_ = &grid;
  report_.clear();
  const dim3& g = grid.grid;
  const std::uint64_t blocks = std::uint64_t{g.x} * g.y * g.z;
  const std::uint64_t i = ordered(linear_index, blocks, grid.options, grid.number);
  blockIdx = {static_cast<unsigned>(i % g.x), static_cast<unsigned>(i / g.x % g.y),
              static_cast<unsigned>(i / g.x / g.y)};
  blockDim = grid.block;
  gridDim = grid.grid;
  random_ = Random(grid.options.seed * 7919 + grid.number * 1000033 + i);
  shared_.start_block(grid.shared_bytes);
  count_ = live_ = static_cast<int>(grid.block.x * grid.block.y * grid.block.z);
  warps_ = {};
  groups_ = {};
  barriers_ = {};
  ready_warps_ = 0;
  progress_ = polls_others_ = false;
  proxy_.clear();
  if (observer != nullptr) observer->block_begins(count_);
  for (int n = 0; n < count_; ++n) {
    Thread& t = threads_[static_cast<std::size_t>(n)];
    const unsigned u = static_cast<unsigned>(n);
    t.index = {u % grid.block.x, u / grid.block.x % grid.block.y, u / grid.block.x / grid.block.y};
    t.state = State::ready;
    t.fake_stack = nullptr;
    t.where = {};
    t.copies.clear();
    t.stack.allocate(n);
    t.sp = t.stack.prepare(enter_thread);
    warps_[static_cast<std::size_t>(t.warp())].live |= 1U << t.lane();
    make_ready(t.warp(), 1U << t.lane());
  }
  const int warps = (count_ + kWarpLanes - 1) / kWarpLanes;
  warp_ = grid.options.order == Order::reverse ? warps - 1 : 0;
  draw_warp_order();
}

bool Block::run(const Grid& grid, std::uint64_t linear_index) {
  start(grid, linear_index);
  current_ = pick();
  threadIdx = current_->index;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&main_fake_stack_, current_->stack.bottom(),
                                 current_->stack.size());
#endif
  grist_emu_switch(&main_sp_, current_->sp);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(main_fake_stack_, nullptr, nullptr);
#endif
  current_ = nullptr;
  if (report_.empty() && proxy_.loads_on_their_way())
    report_ = "the block ended while TMA loads were on their way";
  if (report_.empty() && !shared_.slack_untouched())
    report_ = "a write past the end of dynamic shared memory (" + std::to_string(shared_.size()) +
              " bytes), found when the block ended";
  return report_.empty();
}

void Block::thread_main() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  grid_->body();
  finish();
  std::abort();  // finish() does not come back
}

void Block::finish() {
  Thread& t = *current_;
  if (!t.copies.empty())
    fail("a thread ends with cp.async copies that it never waited for", t.where);
  if (!proxy_.stores_done(t.number))
    fail("a thread ends with TMA stores that it never waited for", t.where);
  if (!proxy_.products_done(t.number / kWarpgroupThreads))
    fail("a thread ends while its warpgroup's wgmma runs", t.where);
  t.state = State::done;
  if (observer != nullptr) observer->release(t.number, &live_);
  Warp& w = warps_[static_cast<std::size_t>(t.warp())];
  w.live &= ~(1U << t.lane());
  --live_;
  progress_ = true;
  for (const Meeting& m : w.meetings) {
    if ((m.mask >> t.lane() & 1U) != 0)
      fail(std::string("ends, but ") + m.name + " of its warp names its lane", m.where);
  }
  for (Barrier& b : barriers_) {
    if (b.arrived > 0 && barrier_complete(b)) complete(b);
  }
  Thread* next = live_ == 0 ? nullptr : pick();
  if (live_ != 0 && next == nullptr) fail(deadlock(), t.where);
  t.stack.ends_in(__builtin_frame_address(0));
  leave(next, true);
}

// ---- what went wrong --------------------------------------------------------------------------

std::string Block::name_of(const Thread& t) const {
  auto triple = [](unsigned x, unsigned y, unsigned z) {
    return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
  };
  return "thread " + triple(t.index.x, t.index.y, t.index.z) + " of block " +
         triple(blockIdx.x, blockIdx.y, blockIdx.z);
}

namespace {
std::string text_of(Where where) {
  return where.file == nullptr ? "" : std::string(where.file) + ":" + std::to_string(where.line);
}
}  // namespace

void Block::fail(const std::string& what, Where where) {
  report_ = name_of(*current_) + ": " + what;
  if (where.file != nullptr) report_ += " [" + text_of(where) + "]";
  leave(nullptr, true);
  std::abort();  // leave() does not come back
}

// Runs of threads in the same state at the same line.
std::string Block::deadlock() const {
  std::string text = "deadlock: no thread of the block can go on";
  for (int i = 0; i < count_;) {
    const Thread& t = threads_[static_cast<std::size_t>(i)];
    int end = i + 1;
    while (end < count_) {
      const Thread& u = threads_[static_cast<std::size_t>(end)];
      if (u.state != t.state || (t.state != State::done && !(u.where == t.where))) break;
      ++end;
    }
    text += "\n  threads " + std::to_string(i) + " to " + std::to_string(end - 1) + ": ";
    text += t.state == State::done ? "done" : std::string(t.doing) + " at " + text_of(t.where);
    i = end;
  }
  return text;
}

const Stack* Block::stack_guard_at(const void* p) const {
  for (const Thread& t : threads_) {
    if (t.stack.guard_contains(p)) return &t.stack;
  }
  return nullptr;
}

}  // namespace grist::emu
