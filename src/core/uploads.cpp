#include "grist/core/uploads.h"

#include <cstring>

#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist {

Uploads::Uploads(Device to, std::size_t bytes, MemoryLedger* ledger)
    : device_(to),
      memory_(Buffer::pinned(to, 2 * bytes, "batches on their way", ledger)),
      bytes_(bytes) {
  rounds_[0].memory = memory_.data();
  rounds_[1].memory = memory_.data() + bytes;
}

Uploads::~Uploads() {
  for (const Round& r : rounds_)
    if (r.done != nullptr) runtime(device_).destroy_mark(r.done);
}

void Uploads::begin() {
  current_ = 1 - current_;
  used_ = 0;
  Round& r = rounds_[current_];
  if (r.done == nullptr) return;
  runtime(device_).wait(r.done);
  runtime(device_).destroy_mark(r.done);
  r.done = nullptr;
}

void Uploads::add(const Context& ctx, const TensorView& to, const void* from) {
  if (to.bytes() == 0) return;
  GRIST_CHECK(used_ + to.bytes() <= bytes_, "{} bytes more in a round of {}, {} are there",
              to.bytes(), bytes_, used_);
  std::byte* here = rounds_[current_].memory + used_;
  std::memcpy(here, from, to.bytes());
  runtime(device_).copy_in(ctx.stream, to.data, here, to.bytes());
  used_ += (to.bytes() + kAlign - 1) / kAlign * kAlign;
}

void Uploads::end(const Context& ctx) {
  rounds_[current_].done = runtime(device_).mark(ctx.stream);
}

Readable::Readable(const Context& ctx, const ConstTensorView& host) : view_(host) {
  if (properties(ctx.device).reads_host_memory || host.bytes() == 0) return;
  room_.emplace(ctx.scratch);
  const TensorView there = ctx.scratch->tensor(host.dtype, host.shape);
  copy_in(ctx, there, host.data);
  view_ = there;
}

}  // namespace grist
