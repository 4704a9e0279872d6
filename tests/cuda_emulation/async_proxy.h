#pragma once
// What the TMA and wgmma have begun in a block and not yet done.
#include <functional>
#include <map>
#include <vector>

#include "emulation/control.h"
#include "random.h"

namespace grist::emu {

// Work that takes place, in order, at any moment between its start and the wait that ends its
// group.
class WorkGroups {
 public:
  void start(std::function<void()> work, Async mode, Random& random);
  void commit();
  void wait(int groups_left);
  bool empty() const { return pending_.empty(); }

 private:
  void perform(std::size_t count);
  std::vector<std::function<void()>> pending_;  // oldest first
  std::vector<std::size_t> groups_;             // how many of pending_ belong to each
  std::size_t open_ = 0;                        // those not committed
};

class AsyncProxy {
 public:
  void clear();
  // A load, which says itself when it has come (mbarrier.h).
  void load(std::function<void()> work, Async mode, Random& random);
  bool loads_on_their_way() const { return !loads_.empty(); }
  // Lets one load come; false: there is none.
  bool let_one_come(Async mode, Random& random);
  WorkGroups& stores(int thread) { return stores_[thread]; }
  WorkGroups& products(int warpgroup) { return products_[warpgroup]; }
  bool stores_done(int thread) const;
  bool products_done(int warpgroup) const;

 private:
  std::vector<std::function<void()>> loads_;
  std::map<int, WorkGroups> stores_;
  std::map<int, WorkGroups> products_;
};

}  // namespace grist::emu
