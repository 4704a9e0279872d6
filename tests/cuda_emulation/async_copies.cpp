#include "async_copies.h"

#include <algorithm>
#include <cstring>

#include "block.h"
#include "observer.h"

namespace grist::emu {

namespace {
int this_thread() {
  return find_this_block()->current().number;
}
}  // namespace

void AsyncCopies::start(void* to, const void* from, std::size_t bytes, Async mode, Random& random,
                        Where where) {
  if (observer != nullptr) {
    if (from != nullptr) observer->reads(from, bytes, Proxy::generic, where);
    observer->copy_begins(this_thread(), to, bytes, Proxy::generic, where);
  }
  std::memset(to, 0xff, bytes);
  pending_.push_back({to, from, bytes});
  ++open_;
  if (mode == Async::eager || (mode == Async::random && random.below(2) == 0))
    perform(pending_.size());
}

void AsyncCopies::commit() {
  groups_.push_back(open_);
  open_ = 0;
}

// Takes the oldest copies out of pending_; groups keep their number, with fewer copies left.
void AsyncCopies::perform(std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const Copy& c = pending_[i];
    if (observer != nullptr)
      observer->copy_ends(this_thread(), c.to, c.bytes, Observer::StoreAt::end);
    if (c.from == nullptr)
      std::memset(c.to, 0, c.bytes);
    else
      std::memcpy(c.to, c.from, c.bytes);
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(count));
  for (std::size_t& g : groups_) {
    const std::size_t taken = std::min(g, count);
    g -= taken;
    count -= taken;
  }
  open_ -= count;
}

void AsyncCopies::wait(int groups_left, Async mode, Random& random) {
  std::size_t count = 0;
  std::size_t ended = 0;
  while (groups_.size() - ended > static_cast<std::size_t>(groups_left)) count += groups_[ended++];
  perform(count);
  groups_.erase(groups_.begin(), groups_.begin() + static_cast<std::ptrdiff_t>(ended));
  if (mode == Async::random && !pending_.empty())
    perform(random.below(static_cast<std::uint32_t>(pending_.size()) + 1));
}

void AsyncCopies::wait_all() {
  perform(pending_.size());
  groups_.clear();
}

void AsyncCopies::clear() {
  pending_.clear();
  groups_.clear();
  open_ = 0;
}

}  // namespace grist::emu
