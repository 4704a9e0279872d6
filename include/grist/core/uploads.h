#pragma once
// Host values on their way to a GPU. They are put into pinned memory, so that the copies are
// asynchronous and the caller's memory is free at once; two rounds of copies may be on their way
// while the host goes on.
#include <array>
#include <cstddef>

#include "grist/core/context.h"
#include "grist/core/memory.h"
#include "grist/core/tensor.h"

struct CUevent_st;

namespace grist {

class Uploads {
 public:
  // `bytes` of a round at most, each tensor rounded up to kAlign.
  Uploads(std::size_t bytes, MemoryLedger* ledger);
  ~Uploads();
  Uploads(const Uploads&) = delete;
  Uploads& operator=(const Uploads&) = delete;
  static constexpr std::size_t kAlign = 64;

  // A new round; waits for the copies of the round before the last one.
  void begin();
  // On the context's stream. `from` may be reused at once.
  void add(const Context& ctx, const TensorView& to, const void* from);
  // The round is whole.
  void end(const Context& ctx);

 private:
  struct Round {
    std::byte* memory = nullptr;
    CUevent_st* done = nullptr;  // null: nothing is on its way
  };
  Buffer memory_;
  std::size_t bytes_;  // of a round
  std::size_t used_ = 0;
  std::array<Round, 2> rounds_;
  std::size_t current_ = 0;
};

}  // namespace grist
