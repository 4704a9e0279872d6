#include "async_proxy.h"

#include <utility>

namespace grist::emu {

void AsyncProxy::clear() {
  loads_.clear();
  stores_.clear();
  warpgroups_.clear();
  new_barriers_.clear();
}

void AsyncProxy::barriers_fenced(int thread) {
  std::erase_if(new_barriers_, [thread](const auto& b) { return b.second == thread; });
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
  const auto found = warpgroups_.find(warpgroup);
  return found == warpgroups_.end() || found->second.products.empty();
}

}  // namespace grist::emu
