#include "warpgroup.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

namespace grist::emu {

namespace {
constexpr std::uint32_t kPoison = ~0U;  // a NaN
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

Accumulators& Warpgroup::product_begins(const Accumulators::Places& d, int count, Where where) {
  auto found = std::find_if(running_.begin(), running_.end(),
                            [&](const Accumulators& a) { return a.are(d, count, where); });
  if (found == running_.end()) found = running_.emplace(running_.end(), d, count, where);
  found->product_begins();
  return *found;
}

void Warpgroup::product_ends(Accumulators& d) {
  if (d.product_ends()) running_.remove_if([&](const Accumulators& a) { return &a == &d; });
}

}  // namespace grist::emu
