#pragma once
// What the TMA and wgmma have begun in a block and not yet done.
#include <functional>
#include <map>
#include <vector>

#include "warpgroup.h"

namespace grist::emu {

class AsyncProxy {
 public:
  void clear();
  // A load, which says itself when it has come (mbarrier.h).
  void load(std::function<void()> work, Async mode, Random& random);
  bool loads_on_their_way() const { return !loads_.empty(); }
  // Lets one load come; false: there is none.
  bool let_one_come(Async mode, Random& random);
  AsyncWork& stores(int thread) { return stores_[thread]; }
  Warpgroup& warpgroup(int number) { return warpgroups_[number]; }
  bool stores_done(int thread) const;
  bool products_done(int warpgroup) const;

  // An mbarrier is new until the thread that made it has called a fence; the TMA does not know it.
  void barrier_made(const void* b, int thread) { new_barriers_[b] = thread; }
  void barriers_fenced(int thread);
  bool barrier_is_new(const void* b) const { return new_barriers_.count(b) != 0; }

 private:
  std::vector<std::function<void()>> loads_;
  std::map<int, AsyncWork> stores_;
  std::map<int, Warpgroup> warpgroups_;
  std::map<const void*, int> new_barriers_;  // to the thread that made it
};

}  // namespace grist::emu
