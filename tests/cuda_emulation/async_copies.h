#pragma once
// cp.async of one thread. A copy may take place at any moment between its start and the wait that
// ends its group; until then the destination holds NaN.
#include <cstddef>
#include <vector>

#include "emulation/control.h"
#include "emulation/engine.h"
#include "random.h"

namespace grist::emu {

class AsyncCopies {
 public:
  // `from` null: zeros.
  void start(void* to, const void* from, std::size_t bytes, Async mode, Random& random,
             Where where);
  void commit();
  void wait(int groups_left, Async mode, Random& random);
  void wait_all();
  bool empty() const { return pending_.empty() && open_ == 0 && groups_.empty(); }
  void clear();

 private:
  struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
  };
  void perform(std::size_t count);
  std::vector<Copy> pending_;        // oldest first
  std::vector<std::size_t> groups_;  // how many of pending_ belong to each, oldest first
  std::size_t open_ = 0;             // those not committed
};

}  // namespace grist::emu
