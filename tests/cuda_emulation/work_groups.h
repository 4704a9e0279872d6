#pragma once
// Asynchronous work that is waited for by groups: cp.async, TMA stores, wgmma.
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "emulation/control.h"
#include "random.h"

namespace grist::emu {

// Work, called once, takes place in the order of its starts, at any moment between its start and
// the wait that ends its group.
template <class Work> class WorkGroups {
 public:
  void start(Work work, Async mode, Random& random) {
    pending_.push_back(std::move(work));
    ++open_;
    if (mode == Async::eager || (mode == Async::random && random.below(2) == 0))
      perform(pending_.size());
  }
  // What was started since the last commit becomes a group.
  void commit() {
    groups_.push_back(open_);
    open_ = 0;
  }
  // Ends all but the last `groups_left` groups.
  void wait(int groups_left, Async mode, Random& random) {
    std::size_t count = 0;
    std::size_t ended = 0;
    while (groups_.size() - ended > static_cast<std::size_t>(groups_left))
      count += groups_[ended++];
    perform(count);
    groups_.erase(groups_.begin(), groups_.begin() + static_cast<std::ptrdiff_t>(ended));
    if (mode == Async::random && !pending_.empty())
      perform(random.below(static_cast<std::uint32_t>(pending_.size()) + 1));
  }
  // Nothing is begun that was not waited for.
  bool empty() const { return pending_.empty() && open_ == 0 && groups_.empty(); }
  void clear() {
    pending_.clear();
    groups_.clear();
    open_ = 0;
  }

 private:
  // The oldest ones; groups keep their number, with less work left.
  void perform(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) pending_[i]();
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(count));
    for (std::size_t& g : groups_) {
      const std::size_t taken = std::min(g, count);
      g -= taken;
      count -= taken;
    }
    open_ -= count;
  }
  std::vector<Work> pending_;        // oldest first
  std::vector<std::size_t> groups_;  // how many of pending_ belong to each, oldest first
  std::size_t open_ = 0;             // those not committed, done or not
};

}  // namespace grist::emu
