#include "async_proxy.h"

#include <algorithm>
#include <utility>

namespace grist::emu {

void WorkGroups::start(std::function<void()> work, Async mode, Random& random) {
  pending_.push_back(std::move(work));
  ++open_;
  if (mode == Async::eager || (mode == Async::random && random.below(2) == 0))
    perform(pending_.size());
}

void WorkGroups::commit() {
  groups_.push_back(open_);
  open_ = 0;
}

void WorkGroups::perform(std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) pending_[i]();
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(count));
  for (std::size_t& g : groups_) {
    const std::size_t taken = std::min(g, count);
    g -= taken;
    count -= taken;
  }
  open_ -= count;
}

void WorkGroups::wait(int groups_left) {
  std::size_t count = 0;
  std::size_t ended = 0;
  while (groups_.size() - ended > static_cast<std::size_t>(groups_left)) count += groups_[ended++];
  perform(count);
  groups_.erase(groups_.begin(), groups_.begin() + static_cast<std::ptrdiff_t>(ended));
}

void AsyncProxy::clear() {
  loads_.clear();
  stores_.clear();
  products_.clear();
}

void AsyncProxy::load(std::function<void()> work, Async mode, Random& random) {
  if (mode == Async::eager || (mode == Async::random && random.below(2) == 0))
    work();
  else
    loads_.push_back(std::move(work));
}

// Loads come in any order.
bool AsyncProxy::let_one_come(Async mode, Random& random) {
  if (loads_.empty()) return false;
  const std::size_t i =
      mode == Async::random ? random.below(static_cast<std::uint32_t>(loads_.size())) : 0;
  const std::function<void()> work = std::move(loads_[i]);
  loads_.erase(loads_.begin() + static_cast<std::ptrdiff_t>(i));
  work();
  return true;
}

bool AsyncProxy::stores_done(int thread) const {
  const auto found = stores_.find(thread);
  return found == stores_.end() || found->second.empty();
}

bool AsyncProxy::products_done(int warpgroup) const {
  const auto found = products_.find(warpgroup);
  return found == products_.end() || found->second.empty();
}

}  // namespace grist::emu
