#pragma once
// What the TMA and wgmma have begun in a block and not yet done.
#include <array>
#include <functional>
#include <list>
#include <map>
#include <vector>

#include "emulation/control.h"
#include "emulation/engine.h"
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

// The registers that a warpgroup's products add to. From the first product to the wait for the last
// one they hold NaN; what they will hold is here.
class Accumulators {
 public:
  using Places = std::array<float*, kWarpgroupThreads>;  // by thread
  Accumulators(const Places& places, int count, Where where);
  float* of(int thread) { return values_.data() + thread * count_; }
  // Whether these are the registers; fails where they are some of them.
  bool are(const Places& places, int count, Where where) const;
  const Places& places() const { return places_; }
  int count() const { return count_; }
  void product_begins() { ++running_; }
  // True: it was the last one, and the registers hold the sums.
  bool product_ends();

 private:
  Places places_;
  int count_;  // a thread
  int running_ = 0;
  Where where_;  // of the first product
  std::vector<float> values_;
};

class Warpgroup {
 public:
  WorkGroups products;
  bool fenced = false;  // wgmma.fence has been called
  Accumulators& product_begins(const Accumulators::Places& d, int count, int number, Where where);
  void product_ends(Accumulators& d, int number);

 private:
  std::list<Accumulators> running_;
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
  Warpgroup& warpgroup(int number) { return warpgroups_[number]; }
  bool stores_done(int thread) const;
  bool products_done(int warpgroup) const;

  // An mbarrier is new until the thread that made it has called a fence; the TMA does not know it.
  void barrier_made(const void* b, int thread) { new_barriers_[b] = thread; }
  void barriers_fenced(int thread);
  bool barrier_is_new(const void* b) const { return new_barriers_.count(b) != 0; }

 private:
  std::vector<std::function<void()>> loads_;
  std::map<int, WorkGroups> stores_;
  std::map<int, Warpgroup> warpgroups_;
  std::map<const void*, int> new_barriers_;  // to the thread that made it
};

}  // namespace grist::emu
