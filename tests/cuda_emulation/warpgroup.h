#pragma once
// What a warpgroup's wgmmas have begun and not yet done.
#include <array>
#include <functional>
#include <list>
#include <vector>

#include "emulation/engine.h"
#include "work_groups.h"

namespace grist::emu {

using AsyncWork = WorkGroups<std::function<void()>>;

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
  AsyncWork products;
  bool fenced = false;  // wgmma.fence has been called
  // One more product adds to these registers, `count` of each thread.
  Accumulators& product_begins(const Accumulators::Places& d, int count, Where where);
  void product_ends(Accumulators& d);

 private:
  std::list<Accumulators> running_;
};

}  // namespace grist::emu
