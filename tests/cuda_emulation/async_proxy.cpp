#include "async_proxy.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "block.h"
#include "observer.h"

namespace grist::emu {

namespace {
constexpr std::uint32_t kPoison = ~0U;  // a NaN
}

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

Accumulators::Accumulators(const Places& places, int count, Where where)
    : places_(places), count_(count), where_(where) {
  values_.resize(places.size() * static_cast<std::size_t>(count));
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(float);
  for (int t = 0; t < kWarpgroupThreads; ++t) {
    float* place = places_[static_cast<std::size_t>(t)];
    std::memcpy(of(t), place, bytes);
    std::memset(place, static_cast<int>(kPoison), bytes);
  }
}

bool Accumulators::are(const Places& places, int count, Where where) const {
  if (places_ == places && count_ == count) return true;
  for (std::size_t t = 0; t < places.size(); ++t) {
    if (places[t] < places_[t] + count_ && places_[t] < places[t] + count)
      fail("a wgmma of another shape uses registers of one that runs", where);
  }
  return false;
}

bool Accumulators::product_ends() {
  if (--running_ > 0) return false;
  for (int t = 0; t < kWarpgroupThreads; ++t) {
    float* place = places_[static_cast<std::size_t>(t)];
    for (int i = 0; i < count_; ++i) {
      if (std::bit_cast<std::uint32_t>(place[i]) != kPoison)
        fail("registers of a wgmma were written while it ran", where_);
    }
    std::memcpy(place, of(t), static_cast<std::size_t>(count_) * sizeof(float));
  }
  return true;
}

Accumulators& Warpgroup::product_begins(const Accumulators::Places& d, int count, int number,
                                        Where where) {
  if (observer != nullptr) {
    for (std::size_t t = 0; t < d.size(); ++t)
      observer->registers_begin(number * kWarpgroupThreads + static_cast<int>(t), d[t],
                                static_cast<std::size_t>(count) * sizeof(float), where);
  }
  auto found = std::find_if(running_.begin(), running_.end(),
                            [&](const Accumulators& a) { return a.are(d, count, where); });
  if (found == running_.end()) found = running_.emplace(running_.end(), d, count, where);
  found->product_begins();
  return *found;
}

void Warpgroup::product_ends(Accumulators& d, int number) {
  if (!d.product_ends()) return;
  if (observer != nullptr) {
    for (std::size_t t = 0; t < d.places().size(); ++t)
      observer->registers_end(number * kWarpgroupThreads + static_cast<int>(t), d.places()[t]);
  }
  running_.remove_if([&](const Accumulators& a) { return &a == &d; });
}

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
