#pragma once
// Host values on their way to a device that does not read the host's memory. They are put into
// pinned memory, so that the copies are asynchronous and the caller's memory is free at once; two
// rounds of copies may be on their way while the host goes on.
#include <array>
#include <cstddef>
#include <optional>

#include "grist/core/context.h"
#include "grist/core/memory.h"
#include "grist/core/tensor.h"

struct CUevent_st;

namespace grist {

class Uploads {
 public:
  // `bytes` of a round at most, each tensor rounded up to kAlign.
  Uploads(Device to, std::size_t bytes, MemoryLedger* ledger);
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
  Device device_;
  Buffer memory_;
  std::size_t bytes_;  // of a round
  std::size_t used_ = 0;
  std::array<Round, 2> rounds_;
  std::size_t current_ = 0;
};

// A few values of the host as operations of this context read them while this lives: where they
// lie, or a copy in ctx.scratch. The host's may be reused at once in the latter case alone.
class Readable {
 public:
  Readable(const Context& ctx, const ConstTensorView& host);
  const ConstTensorView& view() const { return view_; }

 private:
  std::optional<ScratchScope> room_;
  ConstTensorView view_;
};

}  // namespace grist
